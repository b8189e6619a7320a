//! Imports point down, time and entropy come in as arguments, and `unsafe` lives in one place: the design's table, held
//! against the code.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module of the crate and what it may name of the others. Whoever stands lower names nobody above.
const MAY_NAME: &[(&str, &[&str])] = &[
    // The demo builds a lab of its own, with the means that ports are made of.
    ("cli", &["control", "daemon", "ports", "frame", "model", "pcapng", "stats", "sys", "types"]),
    (
        "daemon",
        &[
            "control",
            "worker",
            "slowpath",
            "dataplane",
            "services",
            "tables",
            "model",
            "ports",
            "pcapng",
            "frame",
            "stats",
            "sys",
            "types",
            "wire",
        ],
    ),
    ("control", &["model", "pcapng", "ports", "frame", "stats", "types"]),
    ("worker", &["dataplane", "tables", "model", "ports", "pcapng", "frame", "stats", "sys", "types"]),
    ("slowpath", &["dataplane", "model", "services", "stats", "frame", "wire", "types"]),
    ("ports", &["dataplane", "services", "model", "pcapng", "frame", "wire", "stats", "sys", "types"]),
    ("dataplane", &["services", "tables", "frame", "wire", "stats", "types"]),
    ("services", &["frame", "wire", "stats", "types"]),
    // What the path answers with is compiled too.
    ("tables", &["services", "model", "frame", "wire", "stats", "types"]),
    // It reads options of DHCP by their names.
    ("model", &["wire", "types"]),
    ("pcapng", &["stats", "types"]),
    ("frame", &["sys", "wire", "types"]),
    ("wire", &["types"]),
    ("sys", &["frame", "types"]),
    ("stats", &[]),
    ("types", &[]),
];

/// Exceptions: a file, what it names, and why that is right.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("dataplane/fdb.rs", "sys", "the prefetch instruction, which is pure"),
    ("cli/frame_spec.rs", "dataplane", "the header of VXLAN, which one file alone knows"),
    ("dataplane/conntrack/index.rs", "sys", "tables on huge pages, and the prefetch instruction"),
    ("dataplane/conntrack/slab.rs", "sys", "as above"),
];

/// Modules that are pure, and words that would make them see a clock, a thread, a file or a logger.
const PURE: &[&str] = &["dataplane", "services", "tables", "model", "wire"];
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::",
    "std::fs",
    "fs::",
    "File",
    "RawFd",
    "OwnedFd",
    "std::net::Udp",
    "std::net::Tcp",
    "std::env",
    "tracing",
    "log::",
    "rand::",
    "getrandom",
    "RandomState",
    "Mutex",
    "RwLock",
    "println!",
    "eprintln!",
];

fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        (name, code(&std::fs::read_to_string(&path).unwrap()))
    };
    let sources: Vec<_> = found.into_iter().map(read).filter(|(name, _)| !name.contains("tests")).collect();
    assert!(sources.len() > 50, "the sources are there");
    sources
}

/// The code of a file: without comments, and without the tests at its end, which may reach for what they need.
fn code(text: &str) -> String {
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    own.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules that stand behind `crate::` in a text, alone or in a list in braces.
fn named(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => drop(found.insert(word(rest))),
            Some(list) => {
                let (mut depth, mut start) = (0, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if c.is_ascii_alphabetic() && start => {
                            found.insert(word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

#[test]
fn imports_point_down() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let own = module(&file);
        if matches!(own, "lib" | "main") {
            continue;
        }
        let Some(allowed) = table.get(own) else {
            wrong.push(format!("src/{file}: module `{own}` is not in the table"));
            continue;
        };
        for other in named(&code) {
            let excepted = EXCEPTIONS.iter().any(|(at, what, _)| *at == file && *what == other);
            if other != own && table.contains_key(&*other) && !allowed.contains(&&*other) && !excepted {
                wrong.push(format!(
                    "src/{file}: `{own}` names `{other}`, which stands above it or is none of its business"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table itself has no circles but one: a frame lives in `sys`'s pool, and `sys` knows what a frame carries.
#[test]
fn the_table_has_no_circles() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    fn reaches<'a>(
        table: &BTreeMap<&'a str, &'a [&'a str]>,
        from: &'a str,
        to: &str,
        seen: &mut BTreeSet<&'a str>,
    ) -> bool {
        let next = table.get(from).copied().unwrap_or_default();
        next.iter().any(|next| *next == to || seen.insert(next) && reaches(table, next, to, seen))
    }
    for module in table.keys().filter(|module| !matches!(**module, "frame" | "sys")) {
        assert!(!reaches(&table, module, module, &mut BTreeSet::new()), "`{module}` reaches itself");
    }
}

#[test]
fn the_path_sees_no_clock_thread_file_or_logger() {
    let mut wrong = Vec::new();
    for (file, code) in sources().iter().filter(|(file, _)| PURE.contains(&module(file))) {
        for word in IMPURE.iter().filter(|word| has_word(code, word)) {
            wrong.push(format!("src/{file} names `{word}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (file, code) in sources().iter().filter(|(file, _)| module(file) != "sys") {
        assert!(!has_word(code, "unsafe"), "src/{file} has unsafe code");
    }
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![deny(unsafe_code)]"));
    assert_eq!(lib.matches("allow(unsafe_code)").count(), 1);
}

/// Whether `word` stands in `code` and not within a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = word.ends_with(part) && code[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

#[test]
fn this_test_sees_what_it_looks_for() {
    let seen: Vec<String> =
        named("use crate::{frame::{Pool, Frame}, wire, types::Mac};\ncrate::sys::x()").into_iter().collect();
    assert_eq!(seen, ["frame", "sys", "types", "wire"]);
    assert_eq!(code("a(); // unsafe\n#[cfg(test)]\nmod tests {\n unsafe {} }").trim(), "a();");
    assert!(has_word("x = Instant::now()", "Instant::now") && !has_word("deny(unsafe_code)", "unsafe"));
    assert!(sources().iter().any(|(file, code)| file == "sys/pool.rs" && has_word(code, "unsafe")));
}
