//! One way to call a method over HTTP: which fields come from the path, which from the body, which from the query. Made of an
//! annotation once, with everything checked that can be checked before a request comes.

use super::template::{Extent, Template};
use crate::descriptor::HttpRule;
use crate::fields::FieldPath;
use crate::schema::{Method, Schema, Shape};

/// How a request of one template becomes a message.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The place of the method in the schema.
    pub(crate) method: usize,
    pub(crate) variables: Vec<Bound>,
    pub(crate) body: Body,
    /// The field of the answer that is sent instead of all of it.
    pub(crate) response_body: Option<u16>,
}

/// A field that the path has the value of.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) field: FieldPath,
    /// As the template names it.
    pub(crate) name: Box<str>,
    pub(crate) start: usize,
    pub(crate) extent: Extent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none: every field comes from path and query.
    None,
    /// `*`: it is the message, and there is no query.
    Message,
    /// It is this field; the others may be in the query.
    Field(u16),
}

/// A rule that was read: HTTP method, template, binding.
pub(crate) struct Rule {
    pub(crate) http_method: Box<str>,
    pub(crate) template: Template,
    pub(crate) binding: Binding,
}

impl Rule {
    /// The call that every method has: `POST /package.Service/Method` with the message as its body.
    pub(crate) fn default(index: usize, method: &Method) -> Result<Self, String> {
        let template = Template::parse(&method.path)?;
        let binding = Binding { method: index, variables: Vec::new(), body: Body::Message, response_body: None };
        Ok(Self { http_method: "POST".into(), template, binding })
    }

    /// What the annotation of the method says: the rule itself and its additional bindings.
    pub(crate) fn annotated(schema: &Schema, index: usize, method: &Method) -> Result<Vec<Self>, String> {
        let Some(rule) = &method.rule else { return Ok(Vec::new()) };
        let one = |rule: &HttpRule| {
            Self::read(schema, index, method, rule).map_err(|detail| format!("google.api.http of {}: {detail}", method.path))
        };
        if rule.additional_bindings.iter().any(|rule| !rule.additional_bindings.is_empty()) {
            return Err(format!("google.api.http of {}: an additional binding has additional bindings", method.path));
        }
        std::iter::once(rule).chain(&rule.additional_bindings).map(one).collect()
    }

    fn read(schema: &Schema, index: usize, method: &Method, rule: &HttpRule) -> Result<Self, String> {
        let (http_method, path) = pattern(rule)?;
        let template = Template::parse(path).map_err(|detail| format!("the template {path:?} is wrong: {detail}"))?;
        let mut variables = Vec::with_capacity(template.variables.len());
        for variable in &template.variables {
            let field = FieldPath::resolve(schema, method.input, &variable.field)?;
            if field.field(schema).shape != Shape::One {
                return Err(format!("{:?} names the list {}, which a path cannot have", path, variable.field));
            }
            variables.push(Bound {
                field,
                name: variable.field.as_str().into(),
                start: variable.start,
                extent: variable.extent,
            });
        }
        let input = schema.message(method.input);
        let body = match rule.body.as_str() {
            "" => Body::None,
            "*" => Body::Message,
            name => {
                Body::Field(input.by_name(name).ok_or_else(|| format!("body names {name:?}, which {} has not", input.name))?)
            }
        };
        if let (Body::Field(body), Some(variable)) =
            (body, variables.iter().find(|bound| Body::Field(bound.field.root()) == body))
        {
            // Legal where the path only names a field within the body's message.
            if input.field(body).message().is_none() {
                return Err(format!("{} is bound to both the path and the body", variable.name));
            }
        }
        let output = schema.message(method.output);
        let response_body = match rule.response_body.as_str() {
            "" => None,
            name => {
                let found = output.by_name(name);
                Some(found.ok_or_else(|| format!("response_body names {name:?}, which {} has not", output.name))?)
            }
        };
        Ok(Self {
            http_method: http_method.into(),
            template,
            binding: Binding { method: index, variables, body, response_body },
        })
    }
}

/// The one pattern of a rule.
fn pattern(rule: &HttpRule) -> Result<(&str, &str), String> {
    let custom = rule.custom.as_ref().map_or(("", ""), |custom| (custom.kind.as_str(), custom.path.as_str()));
    let patterns = [
        ("GET", rule.get.as_str()),
        ("PUT", &rule.put),
        ("POST", &rule.post),
        ("DELETE", &rule.delete),
        ("PATCH", &rule.patch),
        custom,
    ];
    let mut given = patterns.into_iter().filter(|(_, path)| !path.is_empty());
    match (given.next(), given.next()) {
        (Some(("", _)), _) => Err("a custom pattern has no kind".to_owned()),
        (Some(pattern), None) => Ok(pattern),
        (Some(_), Some(_)) => Err("it has more than one pattern".to_owned()),
        (None, _) => Err("it has no pattern such as get or post".to_owned()),
    }
}
