//! Documents: from a body's bytes to a checked value, or to *every* mistake in it with its JSON pointer.
//!
//! Serde stops at the first mistake. So the parser notes it, takes the offending value out (or puts a stand-in where one
//! is needed) and reads again, until nothing is left to find.

mod json;

pub(crate) use json::{parse_json, pointer_of};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_policy::Mistake;

/// Most mistakes listed: nobody reads more before correcting the first ones.
const MAX_MISTAKES: usize = 100;
/// Most readings of one document: a mistake costs one, a missing field at most as many more as there are stand-ins.
const MAX_READINGS: usize = 1_000;

/// Reads a `T` from a body, or says everything that is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Vec<Mistake>> {
    let (value, mut mistakes) = parse_json(body)?;
    match read_value(value) {
        Ok(document) if mistakes.is_empty() => Ok(document),
        Ok(_) => Err(mistakes),
        Err(more) => {
            mistakes.extend(more);
            Err(mistakes)
        }
    }
}

/// Reads a `T` from a value, or says everything that is wrong with it.
fn read_value<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Mistake>> {
    let mut reading = Reading { value, ..Reading::default() };
    for _ in 0..MAX_READINGS {
        match serde_path_to_error::deserialize::<_, T>(&reading.value) {
            Ok(document) if reading.mistakes.is_empty() => return Ok(document),
            Ok(_) => break,
            Err(error) => {
                let path = steps(error.path());
                let detail = error.into_inner().to_string();
                if !reading.note(path, detail) || reading.mistakes.len() >= MAX_MISTAKES {
                    break;
                }
            }
        }
    }
    Err(reading.mistakes)
}

/// One step of a path, in the document as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Item(usize),
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Seq { index } => Some(Step::Item(*index)),
            // The value is inside a variant of an enumeration; JSON has no step for that of its own.
            Segment::Enum { variant } => Some(Step::Field(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

#[derive(Debug, Default)]
struct Reading {
    value: Value,
    mistakes: Vec<Mistake>,
    /// Fields whose own mistake is noted, so that their absence is not another one.
    emptied: BTreeSet<Vec<Step>>,
    /// Stand-ins, with how many were tried.
    stand_ins: BTreeMap<Vec<Step>, usize>,
    /// Items taken out of arrays, by their original places.
    taken: BTreeMap<String, BTreeSet<usize>>,
}

impl Reading {
    /// Notes a mistake and makes the document readable beyond it; `false` when that cannot be done.
    fn note(&mut self, mut path: Vec<Step>, detail: String) -> bool {
        while !path.is_empty() && !self.exists(&path) {
            path.pop();
        }
        if let Some(stand_in) = self.stand_ins.keys().find(|place| path.starts_with(place)).cloned() {
            return self.try_next(stand_in, &detail);
        }
        if let Some(field) = quoted_after(&detail, "missing field `") {
            let mut place = path.clone();
            place.push(Step::Field(field.to_owned()));
            if self.emptied.insert(place.clone()) {
                let detail = format!("the field `{field}` is missing");
                self.mistakes.push(Mistake::at(self.pointer(&path), detail));
            }
            self.stand_ins.insert(place.clone(), 0);
            return self.try_next(place, "");
        }
        self.mistakes.push(Mistake::at(self.pointer(&path), detail));
        self.take(&path)
    }

    /// Puts the next stand-in at `place`; when there is none left, gives up what it would have completed.
    fn try_next(&mut self, place: Vec<Step>, detail: &str) -> bool {
        let tried = self.stand_ins.get(&place).copied().unwrap_or(0);
        let named = quoted_after(detail, "expected one of `").or_else(|| quoted_after(detail, "expected `"));
        let plain = ["[]", "{}", "1", "\"a\"", "\"/\"", "\"1s\"", "\"00:00\"", "true", "null"];
        let candidate = match (named, plain.get(tried)) {
            (Some(variant), _) if tried < 2 * plain.len() => Value::String(variant.to_owned()),
            (None, Some(text)) => serde_json::from_str(text).unwrap_or_default(),
            _ => {
                self.stand_ins.remove(&place);
                let whole = &place[..place.len() - 1];
                return self.take(whole);
            }
        };
        self.stand_ins.insert(place.clone(), if named.is_some() { tried + plain.len() } else { tried + 1 });
        let (Some(Step::Field(field)), Some(Value::Object(object))) = (place.last(), at(&mut self.value, &place[..place.len() - 1]))
        else {
            return false;
        };
        object.insert(field.clone(), candidate);
        true
    }

    /// Takes the value at `path` out of the document.
    fn take(&mut self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let array = self.pointer(parents);
        match (at(&mut self.value, parents), last) {
            (Some(Value::Object(object)), Step::Field(field)) => {
                self.emptied.insert(path.to_vec());
                object.remove(field).is_some()
            }
            (Some(Value::Array(items)), Step::Item(index)) if *index < items.len() => {
                items.remove(*index);
                // What was remembered by place inside this array holds no longer.
                self.emptied.retain(|place| !place.starts_with(parents) || place.len() <= parents.len() + 1);
                self.stand_ins.retain(|place, _| !place.starts_with(parents) || place.len() <= parents.len() + 1);
                let original = original(self.taken.get(&array), *index);
                self.taken.entry(array).or_default().insert(original)
            }
            _ => false,
        }
    }

    fn exists(&self, path: &[Step]) -> bool {
        let mut value = &self.value;
        for step in path {
            let next = match (value, step) {
                (Value::Object(object), Step::Field(field)) => object.get(field),
                (Value::Array(items), Step::Item(index)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => value = next,
                None => return false,
            }
        }
        true
    }

    /// The JSON pointer to `path` in the document as it was sent.
    fn pointer(&self, path: &[Step]) -> String {
        path.iter().fold(String::new(), |pointer, step| match step {
            Step::Field(field) => pointer_of(&pointer, field),
            Step::Item(index) => format!("{pointer}/{}", original(self.taken.get(&pointer), *index)),
        })
    }
}

/// The original place of the item that is now at `index` of an array that `taken` were taken out of.
fn original(taken: Option<&BTreeSet<usize>>, index: usize) -> usize {
    taken.into_iter().flatten().fold(index, |place, &gone| if gone <= place { place + 1 } else { place })
}

fn at<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(object), Step::Field(field)) => object.get_mut(field),
        (Value::Array(items), Step::Item(index)) => items.get_mut(*index),
        _ => None,
    })
}

fn quoted_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once('`').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::{rule::Rule, workload::Workload};

    fn pointers<T: DeserializeOwned>(body: &str) -> Vec<String> {
        let mut pointers: Vec<_> =
            read::<T>(body.as_bytes()).err().expect("the document has mistakes").into_iter().map(|mistake| mistake.to_string()).collect();
        pointers.sort();
        pointers
    }

    #[test]
    fn a_good_document_is_read() {
        let workload: Workload = read(br#"{"networks": ["10.0.0.0/8"], "labels": {"app": "shop"}}"#).expect("it is good");
        assert_eq!(workload.labels["app"], "shop");
    }

    #[test]
    fn every_mistake_is_listed_at_its_original_place() {
        let found = pointers::<Rule>(
            r#"{"acton": "allow", "from": [{"networks": ["10.0.0.0/8", "nonsense", "10.1.0.0/16", 7]}, {"lables": {}}, 5, {"principals": ["a*b*c"]}],
               "to": [{"ports": [80, 70000, -1, "x"], "methods": ["get", "POST"]}], "when": {"days": []}}"#,
        );
        let places: Vec<&str> = found.iter().map(|text| text.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            places,
            [
                "/acton",
                "/from/0/networks/1",
                "/from/0/networks/3",
                "/from/1/lables",
                "/from/2",
                "/from/3/principals/0",
                "/to/0/methods/0",
                "/to/0/ports/1",
                "/to/0/ports/2",
                "/to/0/ports/3",
                "/when",
                "the field `action` is missing"
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn missing_fields_are_all_listed_and_a_bad_value_is_not_called_missing() {
        use tidegate_policy::route::{Destination, FilterUse};
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only read")]
        struct Document {
            one: Destination,
            many: Vec<FilterUse>,
            count: u8,
        }
        let found = pointers::<Document>(r#"{"one": {"wait": 1}, "many": [{}, {"plugin": 7}], "count": 300}"#);
        let places: Vec<&str> = found.iter().map(|text| text.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(places, ["/count", "/many/0", "/many/1/plugin", "/one/wait", "/one", "/one"], "{found:#?}");
    }

    #[test]
    fn doubled_keys_and_bad_json_are_refused() {
        assert_eq!(pointers::<Workload>(r#"{"networks": [], "labels": {"a/b": "1", "a/b": "2"}}"#).len(), 1);
        assert!(pointers::<Workload>(r#"{"networks": [], "labels": {"a/b": "1", "a/b": "2"}}"#)[0].starts_with("/labels/a~1b: "));
        assert!(pointers::<Workload>(r#"{"networks": [}"#)[0].contains("line 1"));
        assert!(pointers::<Workload>("")[0].contains("empty"));
    }
}
