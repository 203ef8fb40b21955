//! From a request's method and path to the call that it means: a trie, made once. Literal segments win over `*`, `*` over `**`.

mod binding;
mod template;

use crate::request::{Place, Refusal};
use crate::schema::Schema;
use binding::Bound;
use binding::Rule;
pub(crate) use binding::{Binding, Body};
use std::collections::HashMap;
use template::{Extent, Segment, Template};

/// Most segments of a path that is looked up: far more than templates have, and a bound on the work.
const SEGMENTS: usize = 256;

/// The routes of all exposed methods.
#[derive(Debug)]
pub(crate) struct Routes {
    bindings: Vec<Binding>,
    nodes: Vec<Node>,
}

/// What may follow some segments.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    one: Option<usize>,
    /// What `**` leads to: always an end.
    rest: Option<usize>,
    ends: Vec<End>,
}

/// A template that ends at a node.
#[derive(Debug)]
struct End {
    verb: Option<Box<str>>,
    /// `*` for any.
    http_method: Box<str>,
    binding: usize,
}

/// Which methods are callable besides the annotated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defaults {
    /// Every method at `POST /package.Service/Method`.
    Exposed,
    Hidden,
}

/// What a path means.
#[derive(Debug)]
pub(crate) enum Found<'r, 'p> {
    /// The place of the binding, and what the path says.
    Call(usize, Captures<'p>),
    /// The path is right, the method is not: these are.
    WrongMethod(Vec<&'r str>),
    Nothing,
}

/// A path that was found, in its segments.
#[derive(Debug)]
pub(crate) struct Captures<'p> {
    path: &'p str,
    /// Where each segment begins and ends.
    segments: Vec<(usize, usize)>,
}

impl Routes {
    /// The error says which annotation is wrong, and how.
    pub(crate) fn build(schema: &Schema, defaults: Defaults) -> Result<Self, String> {
        let mut routes = Self { bindings: Vec::new(), nodes: vec![Node::default()] };
        for (index, method) in schema.methods().iter().enumerate() {
            for rule in Rule::annotated(schema, index, method)? {
                routes.insert(rule, |other| {
                    let other = &schema.methods()[other.method].path;
                    Err(format!(
                        "{} and {other} are both annotated with the same method and path: choose services",
                        method.path
                    ))
                })?;
            }
        }
        if defaults == Defaults::Exposed {
            for (index, method) in schema.methods().iter().enumerate() {
                // Whoever annotated another call with this very path meant it.
                routes.insert(Rule::default(index, method)?, |_| Ok(()))?;
            }
        }
        Ok(routes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// The binding at this place.
    pub(crate) fn binding(&self, place: usize) -> &Binding {
        &self.bindings[place]
    }

    fn insert(&mut self, rule: Rule, conflict: impl Fn(&Binding) -> Result<(), String>) -> Result<(), String> {
        let Rule { http_method, template, binding } = rule;
        let node = self.node(&template);
        let verb: Option<Box<str>> = template.verb.map(Into::into);
        if let Some(end) = self.nodes[node].ends.iter().find(|end| end.verb == verb && end.http_method == http_method) {
            return conflict(&self.bindings[end.binding]);
        }
        self.nodes[node].ends.push(End { verb, http_method, binding: self.bindings.len() });
        self.bindings.push(binding);
        Ok(())
    }

    /// The node that the template's segments lead to; made as far as it is not there.
    fn node(&mut self, template: &Template) -> usize {
        let mut at = 0;
        for segment in &template.segments {
            let new = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.as_str().into()).or_insert(new),
                Segment::One => *node.one.get_or_insert(new),
                Segment::Rest => *node.rest.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        at
    }

    /// Looks up what a request means. `path` is without its query, as it was sent: percent-encoding in literals is not undone.
    pub(crate) fn find<'r, 'p>(&'r self, http_method: &str, path: &'p str) -> Found<'r, 'p> {
        let Some(rest) = path.strip_prefix('/') else { return Found::Nothing };
        if rest.split('/').nth(SEGMENTS).is_some() {
            return Found::Nothing;
        }
        let mut segments = Vec::with_capacity(8);
        let mut start = 1;
        for segment in rest.split('/') {
            segments.push((start, start + segment.len()));
            start += segment.len() + 1;
        }
        let mut search = Search { routes: self, http_method, path, allowed: Vec::new() };
        // The verb is what follows the last colon, where a template has one; elsewhere the colon is part of the segment.
        if let Some(colon) = path.rfind(':').filter(|colon| segments.last().is_some_and(|(start, _)| colon > start)) {
            let whole = segments.len() - 1;
            let end = std::mem::replace(&mut segments[whole].1, colon);
            if let Some(binding) = search.descend(0, &segments, Some(&path[colon + 1..])) {
                return Found::Call(binding, Captures { path, segments });
            }
            segments[whole].1 = end;
        }
        match search.descend(0, &segments, None) {
            Some(binding) => Found::Call(binding, Captures { path, segments }),
            None if search.allowed.is_empty() => Found::Nothing,
            None => Found::WrongMethod(search.allowed),
        }
    }
}

struct Search<'r, 'q> {
    routes: &'r Routes,
    http_method: &'q str,
    path: &'q str,
    /// The methods of templates that match but for them.
    allowed: Vec<&'r str>,
}

impl<'r> Search<'r, '_> {
    fn descend(&mut self, node: usize, segments: &[(usize, usize)], verb: Option<&str>) -> Option<usize> {
        let node = &self.routes.nodes[node];
        if let Some((&(start, end), rest)) = segments.split_first() {
            let segment = &self.path[start..end];
            if segment.is_empty() {
                return None;
            }
            let literal = node.literals.get(segment).and_then(|next| self.descend(*next, rest, verb));
            if let Some(binding) = literal.or_else(|| self.descend(node.one?, rest, verb)) {
                return Some(binding);
            }
        } else if let Some(binding) = self.end(node, verb) {
            return Some(binding);
        }
        let no_empty_segment = segments.iter().all(|(start, end)| start < end);
        self.end(&self.routes.nodes[node.rest.filter(|_| no_empty_segment)?], verb)
    }

    fn end(&mut self, node: &'r Node, verb: Option<&str>) -> Option<usize> {
        let mut matching = node.ends.iter().filter(|end| end.verb.as_deref() == verb);
        let found = matching.clone().find(|end| &*end.http_method == self.http_method);
        if let Some(end) = found.or_else(|| matching.clone().find(|end| &*end.http_method == "*")) {
            return Some(end.binding);
        }
        for end in matching.by_ref() {
            if !self.allowed.contains(&&*end.http_method) {
                self.allowed.push(&end.http_method);
            }
        }
        None
    }
}

impl Captures<'_> {
    /// What the path says for the variables of the template, their percent-encoding undone.
    pub(crate) fn values(&self, binding: &Binding) -> Result<Vec<String>, Refusal> {
        let not_text =
            |bound: &Bound| Refusal::new(Place::Path(bound.name.to_string()), "what is percent-encoded is not UTF-8");
        binding.variables.iter().map(|bound| self.value(bound).ok_or_else(|| not_text(bound))).collect()
    }

    /// Nothing where it is no UTF-8.
    fn value(&self, bound: &Bound) -> Option<String> {
        let segments = self.segments.get(bound.start..)?;
        let segments = match bound.extent {
            Extent::One => segments.get(..1)?,
            Extent::Segments(count) => segments.get(..count)?,
            Extent::Rest => segments,
        };
        let (Some((start, _)), Some((_, end))) = (segments.first(), segments.last()) else { return Some(String::new()) };
        let text = &self.path[*start..*end];
        match bound.extent {
            Extent::One => decode(text),
            Extent::Segments(_) | Extent::Rest => decode_but_slashes(text),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Leaves `%2F`, which is not the slash between two segments.
fn decode_but_slashes(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.as_bytes().windows(3).position(|window| window.eq_ignore_ascii_case(b"%2f")) {
        decoded.push_str(&decode(&rest[..index])?);
        decoded.push_str(&rest[index..index + 3]);
        rest = &rest[index + 3..];
    }
    decoded.push_str(&decode(rest)?);
    Some(decoded)
}
