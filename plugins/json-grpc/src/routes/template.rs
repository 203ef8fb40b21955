//! Path templates as `google.api.http` has them: `/v1/{name=shelves/*/books/*}:publish`, `/files/{path=**}`. Only the grammar;
//! what the names in them are is `binding`'s to say.

/// A template: its segments, the variables that span them, the verb after the last colon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) verb: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    /// `*`: one segment.
    One,
    /// `**`: all that are left, none included.
    Rest,
}

/// What a path parameter is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) field: String,
    /// The first segment that belongs to it.
    pub(crate) start: usize,
    pub(crate) extent: Extent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// One segment, whatever it holds: an encoded slash is a slash.
    One,
    /// This many segments, with the slashes between them: an encoded slash stays encoded.
    Segments(usize),
    /// All segments that are left.
    Rest,
}

impl Template {
    /// The error continues "the template … is wrong:".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix('/').ok_or("it does not begin with a slash")?;
        let mut parser = Parser { rest: path, template: Self { segments: Vec::new(), variables: Vec::new(), verb: None } };
        parser.segments(Scope::Template)?;
        if let Some(verb) = parser.rest.strip_prefix(':') {
            parser.template.verb = Some(literal(verb)?);
            parser.rest = "";
        }
        if !parser.rest.is_empty() {
            return Err(format!("{:?} cannot stand where it does", parser.rest));
        }
        let template = parser.template;
        let fields: std::collections::HashSet<_> = template.variables.iter().map(|variable| &variable.field).collect();
        if fields.len() < template.variables.len() {
            return Err("it names a field twice".to_owned());
        }
        Ok(template)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Template,
    Variable,
}

struct Parser<'a> {
    rest: &'a str,
    template: Template,
}

impl Parser<'_> {
    fn segments(&mut self, scope: Scope) -> Result<(), String> {
        loop {
            if self.template.segments.last() == Some(&Segment::Rest) {
                return Err("nothing but a verb may follow **".to_owned());
            }
            self.segment(scope)?;
            match self.rest.strip_prefix('/') {
                Some(rest) => self.rest = rest,
                None => return Ok(()),
            }
        }
    }

    fn segment(&mut self, scope: Scope) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix('{') {
            if scope == Scope::Variable {
                return Err("a variable cannot stand within another".to_owned());
            }
            self.rest = rest;
            return self.variable();
        }
        let end = self.rest.find(['/', '{', '}', ':']).unwrap_or(self.rest.len());
        let (segment, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.template.segments.push(match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            text => Segment::Literal(literal(text)?),
        });
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        let end = self.rest.find(['=', '}']).ok_or("a variable is not closed")?;
        let (field, rest) = self.rest.split_at(end);
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !field.split('.').all(is_name) {
            return Err(format!("{field:?} is not a path to a field"));
        }
        let (field, start) = (field.to_owned(), self.template.segments.len());
        self.rest = rest;
        if let Some(rest) = self.rest.strip_prefix('=') {
            self.rest = rest;
            self.segments(Scope::Variable)?;
        } else {
            self.template.segments.push(Segment::One);
        }
        self.rest = self.rest.strip_prefix('}').ok_or("a variable is not closed")?;
        let extent = match &self.template.segments[start..] {
            [.., Segment::Rest] => Extent::Rest,
            [Segment::One] => Extent::One,
            several => Extent::Segments(several.len()),
        };
        self.template.variables.push(Variable { field, start, extent });
        Ok(())
    }
}

fn literal(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=@".contains(&byte);
    match text {
        "" => Err("a segment is empty".to_owned()),
        _ if text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} cannot be part of a path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        let template = Template::parse(text).unwrap();
        let segments = template.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::One => "*",
            Segment::Rest => "**",
        });
        let mut shape = segments.collect::<Vec<_>>().join("/");
        for variable in &template.variables {
            shape.push_str(&format!(" {}@{}{:?}", variable.field, variable.start, variable.extent));
        }
        template.verb.into_iter().for_each(|verb| shape.push_str(&format!(" :{verb}")));
        shape
    }

    #[test]
    fn templates_are_read() {
        let cases = [
            ("/v1/orders", "v1/orders"),
            ("/v1/orders/{id}", "v1/orders/* id@2One"),
            ("/v1/{name=orders/*}", "v1/orders/* name@1Segments(2)"),
            ("/v1/{name=shelves/*/books/*}:publish", "v1/shelves/*/books/* name@1Segments(4) :publish"),
            ("/v1/{order.name=orders/*}/items/{item.sku}", "v1/orders/*/items/* order.name@1Segments(2) item.sku@4One"),
            ("/files/{path=**}", "files/** path@1Rest"),
            ("/files/{path=a/**}:stat", "files/a/** path@1Rest :stat"),
            ("/v1/*/x/**", "v1/*/x/**"),
            ("/v1/{kind=fixed}", "v1/fixed kind@1Segments(1)"),
            ("/v1:batch", "v1 :batch"),
        ];
        for (text, expected) in cases {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("v1/a", "begin with a slash"),
            ("/", "a segment is empty"),
            ("/v1//a", "a segment is empty"),
            ("/v1/a/", "a segment is empty"),
            ("/v1/{a", "not closed"),
            ("/v1/{a=b/*", "not closed"),
            ("/v1/{}", "not a path to a field"),
            ("/v1/{a..b}", "not a path to a field"),
            ("/v1/{a b}", "not a path to a field"),
            ("/v1/{a={b}}", "within another"),
            ("/v1/**/a", "nothing but a verb"),
            ("/v1/{a=**}/b", "nothing but a verb"),
            ("/v1/a}b", "cannot stand where"),
            ("/v1/{a}b", "cannot stand where"),
            ("/v1/a:", "a segment is empty"),
            ("/v1/a:b/c", "cannot be part of a path"),
            ("/v1/a b", "cannot be part of a path"),
            ("/v1/a?b", "cannot be part of a path"),
            ("/v1/***", "cannot be part of a path"),
            ("/v1/{a}/{a}", "a field twice"),
        ];
        for (text, expected) in cases {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
