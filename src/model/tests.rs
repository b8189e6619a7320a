//! Whole texts: what loads, and each mistake with its place.

use std::path::Path;

use super::*;

#[test]
fn every_example_loads() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let loaded = load(&text, &path.display().to_string());
            assert!(loaded.is_ok(), "{}", render(loaded, &text));
            seen += 1;
        }
    }
    assert!(seen >= 4);
}

fn render(loaded: Result<Model, Vec<Diagnostic>>, text: &str) -> String {
    loaded.err().unwrap_or_default().iter().map(|d| d.render(text) + "\n").collect()
}

/// Each mistake as `line:column path: message`.
fn mistakes(text: &str) -> Vec<String> {
    let found = load(text, "f.toml").err().unwrap_or_default();
    found.iter().map(|d| format!("{}:{} {}: {}", d.line, d.column, d.path, d.message)).collect()
}

/// Objects that mistakes are made around: lines are counted from behind it.
const BASE: &str = r#"
physical_network = [{ name = "p", interface = "eth1", vlan_ranges = ["100:101"] }, { name = "q" }]
network = [
  { name = "flat", network_type = "flat", physical_network = "p" },
  { name = "v100", network_type = "vlan", physical_network = "p", segmentation_id = 100 },
  { name = "home" }, { name = "small", mtu = 1000 }]
"#;

/// Rows of a text and the mistakes of it.
fn table(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        assert_eq!(mistakes(text), *expected, "in {text}");
    }
}

/// As [`table`], for ports: each row is the text of some ports behind [`BASE`].
fn ports(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        let whole = format!("{BASE}{text}");
        let shift = BASE.lines().count();
        let found = mistakes(&whole).into_iter().map(|mistake| {
            let (line, rest) = mistake.split_once(':').unwrap();
            format!("{}:{rest}", line.parse::<usize>().unwrap() - shift)
        });
        assert_eq!(found.collect::<Vec<_>>(), *expected, "in {text}");
    }
}

#[test]
fn mistakes_of_syntax_and_of_shape() {
    table(&[
        ("port = 1", &["1:8 port: there can be several, so this is a list of tables"]),
        ("[port]\nname = \"a\"", &["1:1 port: there can be several, so this is a list of tables"]),
        ("network = [1]", &["1:12 network: expected a table"]),
        ("switch = 1", &["1:10 switch: expected a table, found integer `1`"]),
    ]);
}
