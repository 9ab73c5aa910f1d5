use coreside_shard::schema;

use super::words::{Mistake, Words};

/// What a type looks like in a handshake and in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) schema: u64,
    pub(crate) layout: Layout,
    /// Names of an enum's variants, in order; the first byte of its archive is the number of one.
    variants: Vec<String>,
    /// Of a result: what its first byte may say.
    refusal: Option<Refusal>,
}

/// Bytes that a value takes, and what their place is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) bytes: usize,
    pub(crate) align: usize,
}

/// How a reply that is a `Result` says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Bytes of the root, which lies at the end of the archive; its first byte is 1 for `Err`.
    root_bytes: usize,
    /// Where in it the error lies.
    error_at: usize,
    /// The error's variants if it is an enum.
    names: Vec<String>,
}

impl Layout {
    const fn new(bytes: usize, align: usize) -> Self {
        Self { bytes, align }
    }

    /// Fields one behind the other as C lays them out.
    pub(crate) fn of_fields(fields: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::new(0, 1);
        for field in fields {
            whole.append(field);
        }
        whole.bytes = whole.bytes.next_multiple_of(whole.align);
        whole
    }

    /// Adds a field and returns its place; the end is not padded yet.
    pub(crate) fn append(&mut self, field: Self) -> usize {
        let at = self.bytes.next_multiple_of(field.align);
        self.bytes = at + field.bytes;
        self.align = self.align.max(field.align);
        at
    }

    /// One of several, each behind a byte that says which.
    fn of_variants(variants: impl IntoIterator<Item = Vec<Self>>) -> Self {
        const TAG: Layout = Layout::new(1, 1);
        let mut whole = TAG;
        for fields in variants {
            let variant = Self::of_fields([TAG].into_iter().chain(fields));
            whole.bytes = whole.bytes.max(variant.bytes);
            whole.align = whole.align.max(variant.align);
        }
        whole.bytes = whole.bytes.next_multiple_of(whole.align);
        whole
    }
}

impl Refusal {
    /// What an archive says, if it says no.
    ///
    /// # Errors
    /// When it is too short for its type.
    pub(crate) fn read(&self, archive: &[u8]) -> Result<Option<&str>, ()> {
        let root_at = archive.len().checked_sub(self.root_bytes).ok_or(())?;
        if archive[root_at] == 0 {
            return Ok(None);
        }
        let name =
            archive.get(root_at + self.error_at).and_then(|&at| self.names.get(usize::from(at)));
        Ok(Some(name.map_or("", String::as_str)))
    }
}

/// The types that have a name: those that were declared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types {
    declared: Vec<(String, Shape)>,
}

impl Types {
    /// Takes a declaration as it stands in a program: `struct Total { accounts: u64 }`,
    /// `struct Pair(u64, u64)`, `struct Nothing`, `enum Refusal { Busy, Unknown(String) }`.
    pub(crate) fn declare(&mut self, text: &str) -> Result<(), Mistake> {
        let mut words = Words::new(text)?;
        let start = words;
        let kind = words.name("struct or enum")?;
        let name = words.name("the type's name")?;
        let shape = match kind {
            "struct" => {
                let fields = self.fields(&mut words, "struct")?;
                Shape::new(fields.schema, Layout::of_fields(fields.layouts))
            }
            "enum" => {
                words.expect("{")?;
                let variant = |words: &mut Words<'_>| {
                    let name = words.name("a variant")?;
                    Ok((name.to_owned(), self.fields(words, name)?))
                };
                let variants = words.list("}", variant)?;
                let schemas: Vec<u64> = variants.iter().map(|(_, fields)| fields.schema).collect();
                let layouts = variants.iter().map(|(_, fields)| fields.layouts.clone());
                let mut shape = Shape::new(schema("enum", &schemas), Layout::of_variants(layouts));
                shape.variants = variants.into_iter().map(|(name, _)| name).collect();
                shape
            }
            _ => return Err(start.expected("struct or enum")),
        };
        words.end()?;
        if self.declared.iter().any(|(known, _)| known == name) {
            return Err(Mistake::DeclaredTwice(name.to_owned()));
        }
        self.declared.push((name.to_owned(), shape));
        Ok(())
    }

    /// Takes a type.
    pub(crate) fn shape(&self, words: &mut Words<'_>) -> Result<Shape, Mistake> {
        if words.eat("(") {
            let items = words.list(")", |words| self.shape(words))?;
            return Ok(tuple(&items));
        }
        if words.eat("[") {
            let item = self.shape(words)?;
            words.expect(";")?;
            let count = words.number()?;
            words.expect("]")?;
            let count = usize::try_from(count).map_err(|_| words.expected("a length"))?;
            let bytes = item.layout.bytes.checked_mul(count).ok_or(Mistake::TooLarge)?;
            let layout = Layout::new(bytes, item.layout.align);
            return Ok(Shape::new(schema("array", &[count as u64, item.schema]), layout));
        }
        let name = words.name("a type")?;
        if let Some((_, shape)) = self.declared.iter().find(|(known, _)| known == name) {
            return Ok(shape.clone());
        }
        if let Some(layout) = plain(name) {
            return Ok(Shape::new(schema(name, &[]), layout));
        }
        let parameters = match name {
            "Option" | "Vec" => 1,
            "Result" => 2,
            _ => return Err(Mistake::UnknownType(name.to_owned())),
        };
        words.expect("<")?;
        let items = words.list(">", |words| self.shape(words))?;
        match (name, &items[..]) {
            ("Option", [item]) => Ok(option(item)),
            ("Vec", [item]) => Ok(Shape::new(schema("list", &[item.schema]), RELATIVE)),
            ("Result", [good, bad]) => Ok(result(good, bad)),
            _ => Err(words.expected(if parameters == 1 { "one type" } else { "two types" })),
        }
    }

    /// Takes the fields of a struct or a variant, of which there may be none.
    fn fields(&self, words: &mut Words<'_>, name: &str) -> Result<Fields, Mistake> {
        let mut kind = name.to_owned();
        let (schemas, layouts): (Vec<u64>, Vec<Layout>) = if words.eat("{") {
            let field = |words: &mut Words<'_>| {
                let name = words.name("a field")?;
                words.expect(":")?;
                let shape = self.shape(words)?;
                Ok((schema(name, &[shape.schema]), shape.layout))
            };
            words.list("}", field)?.into_iter().unzip()
        } else if words.eat("(") {
            let field = |words: &mut Words<'_>| {
                let shape = self.shape(words)?;
                Ok((shape.schema, shape.layout))
            };
            let fields = words.list(")", field)?;
            if !fields.is_empty() {
                kind.push_str("()");
            }
            fields.into_iter().unzip()
        } else {
            (Vec::new(), Vec::new())
        };
        Ok(Fields { schema: schema(&kind, &schemas), layouts })
    }
}

/// The fields of a struct or of a variant.
struct Fields {
    schema: u64,
    layouts: Vec<Layout>,
}

impl Shape {
    fn new(schema: u64, layout: Layout) -> Self {
        Self { schema, layout, variants: Vec::new(), refusal: None }
    }

    /// The shape of `()`.
    pub(crate) fn unit() -> Self {
        Self::new(schema("()", &[]), Layout::new(0, 1))
    }

    /// How it says no, if it is a result.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }
}

/// A length, and where the content is, seen from here.
pub(crate) const RELATIVE: Layout = Layout::new(8, 4);

fn plain(name: &str) -> Option<Layout> {
    let bytes = match name {
        "bool" | "u8" | "i8" => 1,
        "u16" | "i16" => 2,
        "u32" | "i32" | "f32" | "char" => 4,
        "u64" | "i64" | "f64" => 8,
        "u128" | "i128" => 16,
        "String" => return Some(RELATIVE),
        _ => return None,
    };
    Some(Layout::new(bytes, bytes))
}

fn tuple(items: &[Shape]) -> Shape {
    if items.is_empty() {
        return Shape::unit();
    }
    let schemas: Vec<u64> = items.iter().map(|item| item.schema).collect();
    Shape::new(schema("tuple", &schemas), Layout::of_fields(items.iter().map(|item| item.layout)))
}

fn option(item: &Shape) -> Shape {
    let layout = Layout::of_variants([vec![], vec![item.layout]]);
    Shape::new(schema("option", &[item.schema]), layout)
}

fn result(good: &Shape, bad: &Shape) -> Shape {
    let layout = Layout::of_variants([vec![good.layout], vec![bad.layout]]);
    let mut shape = Shape::new(schema("result", &[good.schema, bad.schema]), layout);
    shape.refusal = Some(Refusal {
        root_bytes: layout.bytes,
        error_at: 1usize.next_multiple_of(bad.layout.align),
        names: bad.variants.clone(),
    });
    shape
}
