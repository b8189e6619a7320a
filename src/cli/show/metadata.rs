//! `nuswitch show metadata`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::super::print;
use super::super::table::Align::{Left, Right};
use super::super::table::Table;
use super::{Output, list};
use crate::control::client::{Client, encode};
use crate::control::view::Document;

/// Most characters of a document in the table.
const EXCERPT: usize = 48;

/// `nuswitch show metadata`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Port that the guest is behind
    #[arg(long, short, value_name = "PORT")]
    port: String,
    /// Only this document, byte for byte as the guest gets it, as in /latest/meta-data/hostname
    #[arg(long = "path", value_name = "PATH")]
    document: Option<String>,
}

impl Show {
    pub(super) fn execute(&self, client: &Client, output: Output) -> anyhow::Result<ExitCode> {
        let mut query = format!("/v1/metadata?port={}", encode(&self.port));
        if let Some(path) = &self.document {
            query.push_str(&format!("&path={}", encode(path)));
            if output != Output::Json {
                client.stream(&format!("{query}&raw=true"), std::future::pending(), write)?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let documents: Vec<Value> = client.get_key(&query, "metadata")?;
        print(list(output, documents, table)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write(piece: &[u8]) -> io::Result<ControlFlow<()>> {
    let mut output = io::stdout().lock();
    output.write_all(piece)?;
    output.flush()?;
    Ok(ControlFlow::Continue(()))
}

fn table(documents: &[Document]) -> String {
    let mut table = Table::new(&[("path", Left), ("type", Left), ("bytes", Right), ("content", Left)]);
    for document in documents {
        // Of the MIME type, what tells documents from each other.
        let kind = document.content_type.split(';').next().unwrap_or_default();
        table.row([document.path.clone(), kind.to_owned(), document.length.to_string(), excerpt(document)]);
    }
    table.to_string()
}

/// The begin of a document's first line.
fn excerpt(document: &Document) -> String {
    let Some(text) = &document.text else { return "(binary)".to_owned() };
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(EXCERPT).collect();
    if cut.len() < text.trim_end().len() { format!("{cut} …") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_documents() {
        let documents = [
            Document::of("/latest/meta-data/hostname", "text/plain; charset=utf-8", b"web1\n"),
            Document::of("/latest/meta-data/", "text/plain; charset=utf-8", b"hostname\nmac"),
            Document::of("/latest/user-data", "application/octet-stream", &[0x1f, 0x8b, 0xff]),
            Document::of("/nocloud/meta-data", "text/plain", format!("{}\u{1b}", "é".repeat(60)).as_bytes()),
            Document::of("/nocloud/vendor-data", "text/plain", b""),
        ];
        let expected = "\
PATH                        TYPE                      BYTES  CONTENT
/latest/meta-data/hostname  text/plain                    5  web1
/latest/meta-data/          text/plain                   12  hostname …
/latest/user-data           application/octet-stream      3  (binary)
/nocloud/meta-data          text/plain                  121  éééééééééééééééééééééééééééééééééééééééééééééééé …
/nocloud/vendor-data        text/plain                    0
";
        assert_eq!(table(&documents), expected);
    }
}
