//! What a schema would say and XML does not: which paths are always arrays, which are numbers or booleans, and the order of
//! members. Paths are names joined by `/`, counted from the operation's element; `*` is any one name, `**` any number of them.

use crate::names::split;

/// Hints for one operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hints {
    pub(crate) arrays: Vec<Path>,
    pub(crate) numbers: Vec<Path>,
    pub(crate) booleans: Vec<Path>,
    pub(crate) order: Vec<(Path, Vec<String>)>,
}

/// What a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Boolean,
}

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    One,
    Any,
}

/// Longest pattern, in steps.
const STEPS: usize = 32;

impl Hints {
    /// Whether the element at this path is always an array's item.
    pub(crate) fn repeats(&self, path: &[String]) -> bool {
        self.arrays.iter().any(|array| array.takes(path))
    }

    /// The arrays that an element at this path has even when nothing is in them.
    pub(crate) fn empty_arrays<'a>(&'a self, path: &[String]) -> impl Iterator<Item = &'a str> {
        self.arrays.iter().filter_map(move |array| match array.0.split_last() {
            Some((Step::Name(name), parent)) if takes(parent, path) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What the text at this path stands for.
    pub(crate) fn kind(&self, path: &[String]) -> Kind {
        match () {
            () if self.numbers.iter().any(|number| number.takes(path)) => Kind::Number,
            () if self.booleans.iter().any(|boolean| boolean.takes(path)) => Kind::Boolean,
            () => Kind::Text,
        }
    }

    /// Which members come first at this path, in order.
    pub(crate) fn order(&self, path: &[String]) -> &[String] {
        self.order.iter().find(|(at, _)| at.takes(path)).map_or(&[], |(_, names)| names)
    }
}

impl Path {
    /// Reads a pattern; the empty one is the operation's element itself.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let steps = text.split('/').map(|step| match step {
            "*" => Ok(Step::One),
            "**" => Ok(Step::Any),
            name if split(name.strip_prefix('@').unwrap_or(name)).is_some() => Ok(Step::Name(name.to_owned())),
            other => Err(format!("{other:?} is not a name, `*` or `**`; a path is written like `orders/order/@id`")),
        });
        let steps: Vec<_> = steps.collect::<Result<_, _>>()?;
        if steps.len() > STEPS {
            return Err(format!("a path has at most {STEPS} names"));
        }
        if steps.iter().filter(|step| **step == Step::Any).count() > 1 {
            return Err("a path has at most one `**`".to_owned());
        }
        Ok(Self(steps))
    }

    fn takes(&self, path: &[String]) -> bool {
        takes(&self.0, path)
    }
}

fn takes(steps: &[Step], path: &[String]) -> bool {
    match steps.split_first() {
        None => path.is_empty(),
        Some((Step::Any, rest)) => (0..=path.len()).any(|skipped| takes(rest, &path[skipped..])),
        Some((step, rest)) => {
            path.split_first().is_some_and(|(name, left)| {
                let here = match step {
                    Step::Name(wanted) => wanted == name,
                    // An attribute is asked for by name, or `*` would take attributes for elements.
                    Step::One | Step::Any => !name.starts_with('@'),
                };
                here && takes(rest, left)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        if text.is_empty() { Vec::new() } else { text.split('/').map(str::to_owned).collect() }
    }

    #[test]
    fn patterns_take_paths() {
        let rows: [(&str, &[&str], &[&str]); 6] = [
            ("", &[""], &["a"]),
            ("a/b", &["a/b"], &["a", "b", "a/b/c", "a/c", "a/@b"]),
            ("a/*/c", &["a/b/c", "a/c/c"], &["a/c", "a/b/b/c", "a/@b/c"]),
            ("**/c", &["c", "a/c", "a/b/c"], &["c/a", "a/@c", ""]),
            ("a/**/c", &["a/c", "a/b/b/c"], &["c", "b/c"]),
            ("a/@p:b", &["a/@p:b"], &["a/p:b", "a/@b"]),
        ];
        for (pattern, taken, left) in rows {
            let pattern = Path::read(pattern).unwrap();
            assert!(taken.iter().all(|text| pattern.takes(&path(text))), "{pattern:?}");
            assert!(!left.iter().any(|text| pattern.takes(&path(text))), "{pattern:?}");
        }
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for text in ["/a", "a/", "a//b", "a b", "a/***", "**/a/**", "@", "a:b:c", "a/#text"] {
            assert!(Path::read(text).is_err(), "{text}");
        }
        assert!(Path::read(&["a"; STEPS + 1].join("/")).is_err());
    }
}
