//! Which object a request is about: [`find`]. And which connections or bindings, and which page of them. There may be a million, so they are picked where
//! they are, and listed in pages as the Neutron API has them: `limit`, `marker`, and a link to the next page.
//!
//! Names are resolved by the switch; what is malformed is refused here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::encode;
use super::filter::{self, Resource};
use super::view::Problem;

/// Most objects of a page, and as many as it has if nothing else is said.
pub const PAGE: usize = 5000;

/// Fewest digits of an ID that stand for all of it.
const ID_PREFIX: usize = 4;

/// The object of this name; else of this ID; else of the only ID that begins so, with four digits or more.
///
/// # Errors
/// 404 when there is none, 409 when several IDs begin so.
pub fn find<T>(all: Vec<T>, kind: &str, name: &str, of: impl Fn(&T) -> (&str, Uuid)) -> Result<T, Problem> {
    let named = all.iter().position(|one| of(one).0 == name);
    let mut begin = all.iter().enumerate().filter(|(_, one)| begins(of(one).1, name)).map(|(place, _)| place);
    let place = match (named, begin.next(), begin.next()) {
        (Some(place), ..) | (None, Some(place), None) => place,
        (None, None, _) => return Err(Problem::not_found(kind, name)),
        (None, Some(_), Some(_)) => {
            let message = format!("More than one {kind} has an ID that begins with {name}.");
            return Err(Problem::new(409, "Conflict", message));
        }
    };
    drop(begin);
    all.into_iter().nth(place).ok_or_else(|| Problem::not_found(kind, name))
}

/// Whether an ID is this one, in any of its spellings, or begins so, with hyphens or without.
fn begins(id: Uuid, text: &str) -> bool {
    if let Ok(whole) = Uuid::try_parse(text) {
        return whole == id;
    }
    let text = text.to_ascii_lowercase();
    let digits = text.chars().filter(char::is_ascii_hexdigit).count();
    digits >= ID_PREFIX
        && (id.hyphenated().to_string().starts_with(&text) || id.simple().to_string().starts_with(&text))
}

/// Which connections: of each kind that is not empty, one must be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Names or IDs of routers.
    pub routers: Vec<String>,
    /// Names or IDs of networks whose guests' connections they are; with routers: either.
    pub networks: Vec<String>,
    /// Names or numbers of IP protocols.
    pub protocols: Vec<String>,
    /// Where the first packet came from, before or after translation.
    pub sources: Vec<IpNet>,
    /// Where it went, before or after translation.
    pub destinations: Vec<IpNet>,
    /// Ports of either end, before or after translation, or ICMP identifiers.
    pub ports: Vec<u16>,
    /// Names of states.
    pub states: Vec<String>,
    /// Names or IDs of ports whose connections they are.
    pub guests: Vec<String>,
}

/// Which bindings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingFilter {
    /// Names or IDs of routers.
    pub routers: Vec<String>,
    /// Names or numbers of IP protocols.
    pub protocols: Vec<String>,
    /// Inside addresses.
    pub inside: Vec<IpNet>,
    /// Outside addresses.
    pub outside: Vec<IpNet>,
}

/// What can be picked by a query.
pub trait Pick: Default {
    /// Names that it knows.
    const NAMES: &str;
    /// Takes one pair of the query; false: there is no such name.
    ///
    /// # Errors
    /// 400 when the value is malformed.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem>;
}

impl Pick for ConnectionFilter {
    const NAMES: &str = "router, network, protocol, source, destination, port, state, guest";

    fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "router" => self.routers.push(value.to_owned()),
            "network" => self.networks.push(value.to_owned()),
            "protocol" => self.protocols.push(value.to_owned()),
            "source" => self.sources.push(prefix(name, value)?),
            "destination" => self.destinations.push(prefix(name, value)?),
            "port" => self.ports.push(number(name, value, "a port number")?),
            "state" => self.states.push(value.to_owned()),
            "guest" => self.guests.push(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Pick for BindingFilter {
    const NAMES: &str = "router, protocol, inside_address, outside_address";

    fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "router" => self.routers.push(value.to_owned()),
            "protocol" => self.protocols.push(value.to_owned()),
            "inside_address" => self.inside.push(prefix(name, value)?),
            "outside_address" => self.outside.push(prefix(name, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn prefix(name: &str, value: &str) -> Result<IpNet, Problem> {
    let net = value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc())
        .ok_or_else(|| Problem::invalid(format!("{name}: `{value}` is not an address or prefix")))
}

fn number<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| Problem::invalid(format!("{name}: `{value}` is not {what}")))
}

/// Picks by a query that has nothing else in it.
///
/// # Errors
/// 400 when it names what is not there, or a value is malformed.
pub fn pick<T: Pick>(query: &[(String, String)]) -> Result<T, Problem> {
    let mut picked = T::default();
    for (name, value) in query {
        if !picked.take(name, value)? {
            return Err(unknown(name, T::NAMES));
        }
    }
    Ok(picked)
}

fn unknown(name: &str, names: &str) -> Problem {
    let message = format!("They cannot be picked by {name}.");
    Problem::invalid(message).with_detail(format!("They can be by {names}."))
}

/// A place in a list of the switch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The worker.
    pub worker: u16,
    /// The place there.
    pub place: u32,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.place)
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Marker, ()> {
        let (worker, place) = text.split_once('.').ok_or(())?;
        Ok(Marker { worker: worker.parse().map_err(|_| ())?, place: place.parse().map_err(|_| ())? })
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; none: this was the last.
    pub next: Option<Marker>,
}

/// A request for a page.
#[derive(Debug)]
pub struct PageQuery<T> {
    /// What is wanted.
    pub filter: T,
    /// Most objects: 1 to [`PAGE`].
    pub limit: usize,
    /// Where it begins.
    pub from: Option<Marker>,
    fields: Vec<(String, String)>,
    /// Of the next page but for its marker.
    again: String,
}

impl<T: Pick> PageQuery<T> {
    /// Reads a query.
    ///
    /// # Errors
    /// As [`pick`].
    pub fn parse(query: &[(String, String)]) -> Result<PageQuery<T>, Problem> {
        let mut page = PageQuery {
            filter: T::default(),
            limit: PAGE,
            from: None,
            fields: Vec::new(),
            again: String::new(),
        };
        for (name, value) in query {
            match name.as_str() {
                "fields" => page.fields.push((name.clone(), value.clone())),
                "limit" => {
                    let wanted: usize = number(name, value, "a number of objects")?;
                    page.limit = wanted.clamp(1, PAGE);
                }
                "marker" => {
                    page.from = Some(number(name, value, "the marker of a link that the switch gave")?);
                    continue;
                }
                _ if page.filter.take(name, value)? => {}
                _ => return Err(unknown(name, &format!("{}, fields, limit, marker", T::NAMES))),
            }
            page.again.push_str(&format!("{}={}&", encode(name), encode(value)));
        }
        Ok(page)
    }

    /// The answer: `{"<collection>": […], "<collection>_links": […]}`.
    ///
    /// # Errors
    /// 400 when fields are asked for that are not there.
    pub fn answer<R: Resource>(&self, page: &Page<R>) -> Result<Value, Problem> {
        let mut answer = filter::list(&page.items, &self.fields)?;
        if let (Some(next), Some(object)) = (page.next, answer.as_object_mut()) {
            link::<R>(object, &self.again, next);
        }
        Ok(answer)
    }
}

fn link<R: Resource>(object: &mut Map<String, Value>, again: &str, next: Marker) {
    let href = format!("http://localhost/v1/{}?{again}marker={next}", R::COLLECTION);
    object.insert(format!("{}_links", R::COLLECTION), json!([{"rel": "next", "href": href}]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.into(), value.into()));
        text.split('&').filter_map(pair).collect()
    }

    #[test]
    fn an_object_is_found_by_its_name_its_id_or_how_that_begins() {
        let id = |number: u128| Uuid::from_u128(number << 96);
        let all = [("web1", id(0x1111_2222)), ("web2", id(0x1111_3333)), ("11113", id(0x4444_0000))];
        let find = |name: &str| {
            let found = find(all.to_vec(), "Port", name, |(name, id)| (*name, *id));
            found.map(|(name, _)| name).map_err(|problem| problem.status)
        };
        for (name, expected) in [
            ("web2", Ok("web2")),
            ("11112222-0000-0000-0000-000000000000", Ok("web1")),
            ("{11112222-0000-0000-0000-000000000000}", Ok("web1")),
            ("11112", Ok("web1")),
            ("111122220", Ok("web1")),
            ("11112222-0", Ok("web1")),
            ("11113", Ok("11113")),
            ("111133", Ok("web2")),
            ("1111", Err(409)),
            ("444", Err(404)),
            ("4444", Ok("11113")),
            ("", Err(404)),
            ("----", Err(404)),
            ("11112222-0000-0000-0000-0000000000001", Err(404)),
        ] {
            assert_eq!(find(name), expected, "{name}");
        }
    }

    #[test]
    fn a_query_is_read_whole() {
        let text = "router=edge&network=blue&protocol=udp&protocol=6&source=10.0.0.7/24&destination=203.0.113.1&port=53&state=replied";
        let page =
            PageQuery::<ConnectionFilter>::parse(&query(&format!("{text}&limit=7&marker=1.4097"))).unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let expected = ConnectionFilter {
            routers: vec!["edge".into()],
            networks: vec!["blue".into()],
            protocols: vec!["udp".into(), "6".into()],
            sources: vec![net("10.0.0.0/24")],
            destinations: vec![net("203.0.113.1/32")],
            ports: vec![53],
            states: vec!["replied".into()],
            guests: Vec::new(),
        };
        assert_eq!((page.filter, page.limit), (expected, 7));
        assert_eq!(page.from, Some(Marker { worker: 1, place: 4097 }));
        assert!(page.again.ends_with("port=53&state=replied&limit=7&"), "{}", page.again);
        assert_eq!(PageQuery::<BindingFilter>::parse(&query("limit=0")).unwrap().limit, 1);
    }

    #[test]
    fn what_is_malformed_or_unknown_is_refused() {
        for (text, part) in [
            ("source=10.0.0", "`10.0.0` is not an address or prefix"),
            ("port=65536", "`65536` is not a port number"),
            ("prot=udp", "cannot be picked by prot"),
            ("limit=all", "`all` is not a number of objects"),
            ("marker=7", "is not the marker"),
        ] {
            let problem = PageQuery::<ConnectionFilter>::parse(&query(text)).unwrap_err();
            assert_eq!(problem.status, 400);
            assert!(problem.to_string().contains(part), "{problem}");
        }
        assert_eq!(
            pick::<ConnectionFilter>(&query("limit=3")).unwrap_err().status,
            400,
            "flushing has no pages"
        );
    }
}
