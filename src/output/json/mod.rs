//! The report as one JSON document, and the schema that describes it.
//!
//! In: a [`Report`]. Out: `wgnat.report/1` ([`v1`]). Why an own copy of the model: the report's types may change with the
//! code, the document may not.

pub mod v1;

use std::io::{self, Write};

use schemars::generate::SchemaSettings;

use crate::report::Report;

/// Writes `report` as indented JSON with a final newline.
pub fn render(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &v1::Report::from(report))?;
    writeln!(out)
}

/// The JSON Schema (draft 2020-12) of version 1, as docs/schema/ holds it.
pub fn schema() -> String {
    let schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<v1::Report>();
    // A schema is plain JSON, which always has a text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
