//! The documents that we answer with ourselves, as pure functions of a [`Guest`].
//!
//! Three trees share the root as on a real cloud: EC2's versions beside `openstack` and `nocloud`. All versions of a tree have
//! the same, newest content; readers skip what they do not know. Where a value is not known, its document is not there, rather
//! than made up.

use hyper::body::Bytes;
use serde_json::Value;

use super::Guest;

mod ec2;
mod nocloud;
mod openstack;
#[cfg(test)]
mod tests;

/// MIME types.
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// A document or a listing.
pub(super) struct Content {
    /// Its MIME type.
    pub(super) kind: &'static str,
    /// Its bytes.
    pub(super) body: Bytes,
}

impl Content {
    fn text(body: impl Into<Bytes>) -> Content {
        Content { kind: TEXT, body: body.into() }
    }

    fn json(value: &Value) -> Content {
        Content { kind: JSON, body: value.to_string().into() }
    }

    fn binary(body: impl AsRef<[u8]> + Send + 'static) -> Content {
        Content { kind: BINARY, body: Bytes::from_owner(body) }
    }
}

/// A document that is there, or not, by its name.
type Document = (&'static str, fn(&Guest) -> Option<Content>);

/// What a path names; nothing when there is no such document. Slashes at the end and more than one are as good as one.
pub(super) fn answer(guest: &Guest, path: &str) -> Option<Content> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["openstack", rest @ ..] => openstack::answer(guest, rest),
        ["nocloud", rest @ ..] => documents(nocloud::DOCUMENTS, guest, rest),
        // Nova has EC2's tree by this name too.
        ["ec2", rest @ ..] | rest => ec2::answer(guest, rest),
    }
}

/// What a guest gets, path by path, as it gets it: EC2's and OpenStack's `latest`, and NoCloud. Bytes that are no UTF-8 are
/// shown as U+FFFD.
pub fn tree(guest: &Guest) -> Vec<(String, String)> {
    let mut paths = ec2::paths(guest);
    paths.extend(openstack::DOCUMENTS.iter().map(|(name, _)| format!("/openstack/latest/{name}")));
    paths.extend(nocloud::DOCUMENTS.iter().map(|(name, _)| format!("/nocloud/{name}")));
    let read = |path: String| {
        let content = answer(guest, &path)?;
        Some((path, String::from_utf8_lossy(&content.body).into_owned()))
    };
    paths.into_iter().filter_map(read).collect()
}

/// What a guest gets for a path: its MIME type and its bytes as they are; none: 404.
pub fn document(guest: &Guest, path: &str) -> Option<(&'static str, Bytes)> {
    answer(guest, path).map(|Content { kind, body }| (kind, body))
}

/// A document of a list, or the list.
fn documents(list: &[Document], guest: &Guest, path: &[&str]) -> Option<Content> {
    match path {
        [] => {
            let there = |(name, make): &Document| make(guest).map(|_| *name);
            Some(Content::text(list.iter().filter_map(there).collect::<Vec<_>>().join("\n")))
        }
        [name] => list.iter().find(|(known, _)| known == name).and_then(|(_, make)| make(guest)),
        _ => None,
    }
}

/// The segments of a path, decoded (RFC 3986, 2.1); nothing when that gives no UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect()
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit =
                || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            decoded.push(digit()? << 4 | digit()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// What the cloud gives, as JSON: as it is, or a JSON string of it.
fn vendor_json(data: Option<&[u8]>) -> Value {
    match data {
        None => Value::Object(serde_json::Map::new()),
        Some(data) => serde_json::from_slice(data)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(data).into_owned())),
    }
}
