//! Desired state in Neutron's words, valid as a whole: what a TOML file (and later the API) asks for, with defaults
//! filled in and references checked. Field names and defaults are those of the Neutron v2.0 API.

mod diagnostic;
mod later;
mod read;
mod reader;
mod schema;
mod validate;

use toml::de::DeTable;
use uuid::Uuid;

pub use diagnostic::Diagnostic;
pub use schema::*;
pub use validate::OBJECTS_MAX;

use diagnostic::Report;
use reader::Reader;

/// The name space of all identifiers that follow from names.
const NAMESPACE: Uuid = Uuid::from_u128(0x6e75_7377_6974_5e68_8c5d_0f1a_7c1e_2b39);

/// The identifier of an object without one of its own: stable for its kind and name.
pub fn id(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{name}").as_bytes())
}

/// Reads a configuration. `file` is its name in messages.
///
/// # Errors
/// Every mistake of the text, in its order.
pub fn load(text: &str, file: &str) -> Result<Model, Vec<Diagnostic>> {
    let report = Report::new(text, file);
    let (root, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    for error in errors {
        report.add(error.span().unwrap_or(0..0), "", error.message(), None);
    }
    let draft = read::document(Reader::new(root, String::new(), &report), &report);
    let _ = broken;
    let model = validate::validate(draft, &report);
    if report.is_empty() { Ok(model) } else { Err(report.into_sorted()) }
}
