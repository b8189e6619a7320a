//! Takes a spanned TOML table apart key by key. Each value is read on its own, so that one wrong value hides no other,
//! and what nobody asked for is a mistake: a reader must be [finished](Reader::finish).

use std::ops::{Range, RangeInclusive};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::diagnostic::{Report, Reported, nearest};

/// A value that may be left out.
pub(super) type Field<T> = Result<Option<Spanned<T>>, Reported>;

/// The elements of a list that could be read, and whether that is all of them.
pub(super) struct List<T> {
    pub(super) items: Vec<Spanned<T>>,
    pub(super) whole: Result<(), Reported>,
}

impl<T> List<T> {
    /// Each element as `into` makes it.
    pub(super) fn map<U>(self, into: impl Fn(T) -> U) -> List<U> {
        let items = self.items.into_iter().map(|item| Spanned::new(item.span(), into(item.into_inner())));
        List { items: items.collect(), whole: self.whole }
    }
}

/// Keys of the whole language that this version has not built, each with what to do instead.
pub(super) type Later = [(&'static str, &'static str)];

/// An element of a list that is a value alone or a table.
pub(super) enum Part<'i, 'r, T> {
    Value(Spanned<T>),
    Table(Reader<'i, 'r>),
}

pub(super) struct Reader<'i, 'r> {
    /// What was not asked for yet.
    rest: DeTable<'i>,
    /// The header or the braces.
    span: Range<usize>,
    path: String,
    /// Every key asked for, and where it stands if it was there.
    asked: Vec<(&'static str, Option<Range<usize>>)>,
    report: &'r Report<'r>,
}

impl<'i, 'r> Reader<'i, 'r> {
    pub(super) fn new(table: Spanned<DeTable<'i>>, path: String, report: &'r Report<'r>) -> Reader<'i, 'r> {
        let span = table.span();
        Reader { rest: table.into_inner(), span, path, asked: Vec::new(), report }
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a key of this table.
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake at `span`, which belongs to `key`.
    pub(super) fn wrong(
        &self,
        span: Range<usize>,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Reported {
        self.report.add(span, &self.path_of(key), message, hint)
    }

    /// Where a key that was asked for stands.
    pub(super) fn given(&self, key: &str) -> Option<Range<usize>> {
        self.asked.iter().find(|(asked, _)| *asked == key)?.1.clone()
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        let entry = self.rest.remove_entry(key);
        self.asked.push((key, entry.as_ref().map(|(key, _)| key.span())));
        entry.map(|(_, value)| value)
    }

    fn value<T: DeserializeOwned>(
        &self,
        key: &str,
        value: Spanned<DeValue<'i>>,
    ) -> Result<Spanned<T>, Reported> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Ok(Spanned::new(span, value)),
            Err(error) => Err(self.wrong(error.span().unwrap_or(span), key, plain(error.message()), None)),
        }
    }

    /// The value of a key.
    pub(super) fn field<T: DeserializeOwned>(&mut self, key: &'static str) -> Field<T> {
        self.take(key).map(|value| self.value(key, value)).transpose()
    }

    /// The value of a key that must be there.
    pub(super) fn required<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
    ) -> Result<Spanned<T>, Reported> {
        self.field(key)?.ok_or_else(|| self.missing(key, None))
    }

    pub(super) fn missing(&self, key: &str, hint: Option<String>) -> Reported {
        self.wrong(self.span(), key, "is missing", hint)
    }

    /// The value of a key, or `default` when it is left out or wrong: a wrong one fails the whole file anyway.
    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &'static str, default: T) -> T {
        self.field(key).ok().flatten().map_or(default, Spanned::into_inner)
    }

    /// A number within bounds.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u32>,
        unit: &str,
    ) -> Field<u32> {
        let Some(value) = self.field::<i64>(key)? else { return Ok(None) };
        let number = u32::try_from(*value.get_ref()).ok().filter(|number| bounds.contains(number));
        number.map(|number| Some(Spanned::new(value.span(), number))).ok_or_else(|| {
            let (from, to) = (bounds.start(), bounds.end());
            let message = format!("{} is outside of {from} to {to}{unit}", value.get_ref());
            self.wrong(value.span(), key, message, None)
        })
    }

    /// One of several words. `later` are words that this version has not built.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        later: &Later,
    ) -> Field<T> {
        let Some(value) = self.field::<String>(key)? else { return Ok(None) };
        let word = value.get_ref().as_str();
        if let Some((_, meaning)) = words.iter().find(|(candidate, _)| *candidate == word) {
            return Ok(Some(Spanned::new(value.span(), *meaning)));
        }
        if let Some((_, instead)) = later.iter().find(|(candidate, _)| *candidate == word) {
            let message = format!("`{word}` is not built yet in this version");
            return Err(self.wrong(value.span(), key, message, Some((*instead).to_owned())));
        }
        let hint = match nearest(word, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("one of {}", all.join(", "))
            }
        };
        Err(self.wrong(value.span(), key, format!("`{word}` is not known here"), Some(hint)))
    }

    /// The elements of a list, each judged on its own; none when it is left out.
    pub(super) fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> List<T> {
        let Some(value) = self.take(key) else { return List { items: Vec::new(), whole: Ok(()) } };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => self.elements(key, array),
            other => {
                let message = format!("expected a list, found {}", article(other.type_str()));
                List { items: Vec::new(), whole: Err(self.wrong(span, key, message, None)) }
            }
        }
    }

    /// As [`Reader::list`]; a string alone is a list of one.
    pub(super) fn one_or_list<T: DeserializeOwned>(&mut self, key: &'static str) -> List<T> {
        if !self.rest.get(key).is_some_and(|value| value.get_ref().is_str()) {
            return self.list(key);
        }
        match self.field(key) {
            Ok(one) => List { items: one.into_iter().collect(), whole: Ok(()) },
            Err(reported) => List { items: Vec::new(), whole: Err(reported) },
        }
    }

    fn elements<T: DeserializeOwned>(&self, key: &str, array: DeArray<'i>) -> List<T> {
        let mut list = List { items: Vec::new(), whole: Ok(()) };
        for element in array {
            match self.value(key, element) {
                Ok(value) => list.items.push(value),
                Err(reported) => list.whole = Err(reported),
            }
        }
        list
    }

    /// A table inside of this one.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Result<Option<Reader<'i, 'r>>, Reported> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => {
                Ok(Some(Reader::new(Spanned::new(span, table), self.path_of(key), self.report)))
            }
            other => {
                let message = format!("expected a table, found {}", article(other.type_str()));
                Err(self.wrong(span, key, message, Some(format!("write {example}"))))
            }
        }
    }

    /// True or false, where the key has one of them and nothing else.
    pub(super) fn truth(&mut self, key: &'static str) -> Option<Spanned<bool>> {
        let is_bool = self.rest.get(key).is_some_and(|value| value.get_ref().is_bool());
        if is_bool { self.field(key).ok().flatten() } else { None }
    }

    /// The objects under `[[key]]`, with `key[name]` as their path.
    pub(super) fn objects(&mut self, key: &'static str) -> Vec<Reader<'i, 'r>> {
        self.objects_by(key, "name")
    }

    /// As [`Reader::objects`], for objects that are known by the value of `label`.
    pub(super) fn objects_by(&mut self, key: &'static str, label: &str) -> Vec<Reader<'i, 'r>> {
        let path = |index: usize, table: &DeTable<'i>| {
            let name = table.get(label).and_then(|name| name.get_ref().as_str());
            let name = name.filter(|name| !name.is_empty());
            name.map_or_else(|| format!("{key}[#{}]", index + 1), |name| format!("{key}[{name}]"))
        };
        self.tables(key, &format!("write [[{key}]] above each one"), path).0
    }

    /// A list of tables within this one, which share the key's path, and whether that is all of them.
    pub(super) fn parts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> (Vec<Reader<'i, 'r>>, Result<(), Reported>) {
        let path = self.path_of(key);
        self.tables(key, &format!("write {example}"), |_, _| path.clone())
    }

    /// A list of values and of tables within this one, which share the key's path, and whether that is all of them.
    pub(super) fn values_or_parts<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> (Vec<Part<'i, 'r, T>>, Result<(), Reported>) {
        let mut parts = (Vec::new(), Ok(()));
        let Some(value) = self.take(key) else { return parts };
        let span = value.span();
        let DeValue::Array(array) = value.into_inner() else {
            let hint = Some(format!("write {example}"));
            parts.1 = Err(self.wrong(span, key, "there can be several, so this is a list", hint));
            return parts;
        };
        for element in array {
            if !element.get_ref().is_table() {
                match self.value(key, element) {
                    Ok(value) => parts.0.push(Part::Value(value)),
                    Err(reported) => parts.1 = Err(reported),
                }
                continue;
            }
            let span = element.span();
            if let DeValue::Table(table) = element.into_inner() {
                let reader = Reader::new(Spanned::new(span, table), self.path_of(key), self.report);
                parts.0.push(Part::Table(reader));
            }
        }
        parts
    }

    fn tables(
        &mut self,
        key: &'static str,
        hint: &str,
        path: impl Fn(usize, &DeTable<'i>) -> String,
    ) -> (Vec<Reader<'i, 'r>>, Result<(), Reported>) {
        let mut tables = (Vec::new(), Ok(()));
        let Some(value) = self.take(key) else { return tables };
        let span = value.span();
        let hint = Some(hint.to_owned());
        let DeValue::Array(array) = value.into_inner() else {
            tables.1 = Err(self.wrong(span, key, "there can be several, so this is a list of tables", hint));
            return tables;
        };
        for (index, element) in array.into_iter().enumerate() {
            let span = element.span();
            let DeValue::Table(table) = element.into_inner() else {
                tables.1 = Err(self.wrong(span, key, "expected a table", hint.clone()));
                continue;
            };
            let path = path(index, &table);
            tables.0.push(Reader::new(Spanned::new(span, table), path, self.report));
        }
        tables
    }

    /// Refuses keys that are there but belong elsewhere: `owners` lists each key with the choices that have it.
    pub(super) fn refuse_foreign(&self, selector: &str, chosen: &str, owners: &[(&str, &[&str])]) {
        for (key, choices) in owners {
            let Some(span) = self.given(key).filter(|_| !choices.contains(&chosen)) else { continue };
            let all: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
            let message = format!("`{key}` belongs to {selector} = {}", all.join(" or "));
            self.wrong(span, key, message, None);
        }
    }

    /// Refuses words that stand elsewhere for what another key says here, with that key.
    pub(super) fn refuse_renamed(&mut self, words: &[(&str, &str)]) {
        for (word, key) in words {
            if let Some((word, _)) = self.rest.remove_entry(*word) {
                let hint = Some(format!("write `{key}`"));
                self.wrong(word.span(), word.get_ref(), "unknown key", hint);
            }
        }
    }

    /// Every key left over is a mistake.
    pub(super) fn finish(self, later: &Later) {
        for (key, _) in &self.rest {
            let (span, word) = (key.span(), key.get_ref().as_ref());
            if let Some((_, instead)) = later.iter().find(|(candidate, _)| *candidate == word) {
                self.wrong(span, word, "is not built yet in this version", Some((*instead).to_owned()));
                continue;
            }
            // Neutron's `provider:network_type` is `network_type` here.
            let bare = word.rsplit(':').next().unwrap_or(word);
            let near = nearest(bare, self.asked.iter().map(|(key, _)| *key));
            self.wrong(span, word, "unknown key", near.map(|near| format!("did you mean `{near}`?")));
        }
    }
}

/// Serde's messages in the words of TOML.
fn plain(message: &str) -> String {
    let rest = ["invalid type: ", "invalid value: "].iter().find_map(|start| message.strip_prefix(start));
    let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let expected = match expected {
        "i64" => "a whole number",
        "a boolean" => "true or false",
        other => other,
    };
    format!("expected {expected}, found {}", article(found))
}

fn article(found: &str) -> String {
    match found {
        "sequence" | "array" => "a list".to_owned(),
        "map" | "table" => "a table".to_owned(),
        "integer" => "a whole number".to_owned(),
        "string" => "a string".to_owned(),
        other => other.trim_end_matches(" as i128").to_owned(),
    }
}
