//! Shapes as text: what a schema's number is made of, for people and for lock files.

use std::collections::BTreeMap;

/// The named types that a shape is made of, gathered while it is written.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    types: BTreeMap<(String, u64), Vec<String>>,
}

/// A field: its name, empty where it has none, and the shape of its type.
pub type ShapeField = (&'static str, String);

impl Shapes {
    /// Each named type: its name, its schema, and its lines: the kind, then a line for each field
    /// or variant. In the order of names.
    pub fn types(&self) -> impl Iterator<Item = (&str, u64, &[String])> {
        self.types.iter().map(|((name, schema), lines)| (name.as_str(), *schema, lines.as_slice()))
    }

    /// Adds a named type; returns its name.
    pub fn define(&mut self, name: &str, schema: u64, kind: &str, fields: &[ShapeField]) -> String {
        let lines = [kind.to_owned()].into_iter().chain(fields.iter().map(field)).collect();
        self.types.insert((name.to_owned(), schema), lines);
        name.to_owned()
    }

    /// A variant of an enum.
    pub fn variant(name: &str, fields: &[ShapeField]) -> String {
        match fields {
            [] => name.to_owned(),
            [("", _), ..] => format!("{name}({})", list(fields)),
            _ => format!("{name} {{ {} }}", list(fields)),
        }
    }

    /// The arguments of a message.
    pub fn message(fields: &[ShapeField]) -> String {
        format!("({})", list(fields))
    }
}

fn field((name, shape): &ShapeField) -> String {
    if name.is_empty() { shape.clone() } else { format!("{name}: {shape}") }
}

fn list(fields: &[ShapeField]) -> String {
    fields.iter().map(field).collect::<Vec<_>>().join(", ")
}
