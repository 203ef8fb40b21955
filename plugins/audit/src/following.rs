//! Follows pointers into a JSON body as it streams by. What none of them names is passed over; of what one names no more is
//! kept, and only until it ends, than [`VALUES`] allows.

use crate::{
    pointers::{KEY_BYTES, Pointers, Several},
    redaction::{REDACTED, Redaction},
};
use detection::{JsonWalk, Kind, NotJson, Visitor};
use serde_json::Value as Json;
use std::{cell::Cell, rc::Rc};
use tidegate_sdk::attributes::Value;

/// Most bytes, as they are written, that the values at the pointers of one body have together: as much as an event may have.
pub(crate) const VALUES: usize = 16 << 10;
/// The least that one counts for: a field that is named again and again costs more than its bytes.
const LEAST: usize = 64;
/// Most bytes of values that have begun and not ended, of all bodies that are under way: a filter has little memory, and a caller
/// can leave a value unfinished for as long as it likes.
const UNDER_WAY: usize = 4 << 20;

/// How many bytes of values are kept, of all bodies that are under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(Rc<Cell<usize>>);

/// A body into which pointers are followed.
#[derive(Debug)]
pub(crate) struct Following {
    walk: JsonWalk,
    way: Way,
    state: State,
}

/// How far the body can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of it has come.
    Unseen,
    Open,
    /// It has ended well, or was empty.
    Whole,
    NotJson,
}

/// What was found, and what is needed to find more.
#[derive(Debug)]
struct Way {
    /// What is open, from the outside, as far as pointers lead into it.
    levels: Vec<Level>,
    /// How much more is open inside that.
    beyond: usize,
    /// As much of a key as has come, where pointers may go on with it.
    key: Vec<u8>,
    /// The values that have begun and not ended, from the outside. All of them lie within the first.
    taking: Vec<Taking>,
    /// The bytes of the first.
    raw: Vec<u8>,
    room: Room,
    /// How many bytes the values had that have ended.
    taken: usize,
    found: Vec<(usize, Value)>,
    too_large: Several,
    crowded: Several,
    broken: bool,
}

/// An object or an array that pointers lead into.
#[derive(Debug)]
struct Level {
    pointers: Several,
    next: Next,
}

/// What is the next value of a container.
#[derive(Debug)]
enum Next {
    /// The element of this index.
    Element(u64),
    /// The field that these pointers go on with.
    Field(Several),
}

/// A value that is kept until it ends.
#[derive(Debug)]
struct Taking {
    pointers: Several,
    start: usize,
    level: usize,
}

/// What one body has of [`UNDER_WAY`]; it is given back with it.
#[derive(Debug)]
struct Room {
    all: UnderWay,
    own: usize,
}

impl Following {
    pub(crate) fn new(under_way: &UnderWay) -> Self {
        let room = Room { all: under_way.clone(), own: 0 };
        let way = Way {
            levels: Vec::new(),
            beyond: 0,
            key: Vec::new(),
            taking: Vec::new(),
            raw: Vec::new(),
            room,
            taken: 0,
            found: Vec::new(),
            too_large: Several::default(),
            crowded: Several::default(),
            broken: false,
        };
        Self { walk: JsonWalk::default(), way, state: State::Unseen }
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, pointers: &Pointers, redaction: &Redaction, bytes: &[u8]) {
        if self.state == State::NotJson || bytes.is_empty() {
            return;
        }
        self.state = State::Open;
        let walked = self.walk.feed(bytes, &mut Follower { pointers, redaction, way: &mut self.way });
        self.settle(walked);
    }

    /// The body has ended.
    pub(crate) fn end(&mut self, pointers: &Pointers, redaction: &Redaction) {
        match self.state {
            State::Open => {
                self.state = State::Whole;
                let walked = self.walk.end(&mut Follower { pointers, redaction, way: &mut self.way });
                self.settle(walked);
            }
            State::Unseen => self.state = State::Whole,
            State::Whole | State::NotJson => {}
        }
    }

    fn settle(&mut self, walked: Result<(), NotJson>) {
        if walked.is_err() || self.way.broken {
            self.state = State::NotJson;
            // What was found until then is not what a reader of JSON would find.
            self.way.found.clear();
            (self.way.too_large, self.way.crowded) = Default::default();
            self.way.stop_taking();
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Pointers whose values were too large, and those whose values came while too many others were under way.
    pub(crate) fn left_out(&self) -> (Several, Several) {
        (self.way.too_large, self.way.crowded)
    }

    /// What was found, in the order of the pointers.
    pub(crate) fn found(self) -> Vec<(usize, Value)> {
        let mut found = self.way.found;
        found.sort_by_key(|(pointer, _)| *pointer);
        found
    }
}

/// Is told what the body consists of, and follows the pointers.
struct Follower<'a> {
    pointers: &'a Pointers,
    redaction: &'a Redaction,
    way: &'a mut Way,
}

impl Visitor for Follower<'_> {
    fn begins(&mut self, kind: Kind) {
        let (pointers, way) = (self.pointers, &mut *self.way);
        if way.beyond > 0 {
            way.beyond += usize::from(kind.is_container());
            return;
        }
        let depth = way.levels.len();
        let there = match way.levels.last_mut() {
            None => pointers.all(),
            Some(level) => level.next(pointers, depth - 1),
        };
        if there.is_empty() {
            way.beyond = usize::from(kind.is_container());
            return;
        }
        // Of several fields of one name the last one counts, as it does to most readers.
        way.forget(there);
        let here = pointers.here(there, depth, kind);
        way.found.extend(here.secret.places().map(|pointer| (pointer, Value::from(REDACTED))));
        if !here.named.is_empty() {
            way.taking.push(Taking { pointers: here.named, start: way.raw.len(), level: depth });
        }
        let next = match kind {
            Kind::Array => Next::Element(0),
            _ => Next::Field(Several::default()),
        };
        match kind.is_container() {
            true if here.within.is_empty() => way.beyond = 1,
            true => way.levels.push(Level { pointers: here.within, next }),
            false => {}
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.way.take(bytes);
    }

    fn key(&mut self, bytes: &[u8], whole: bool) {
        let way = &mut *self.way;
        if way.beyond > 0 {
            return;
        }
        if way.key.len() <= KEY_BYTES {
            way.key.extend_from_slice(&bytes[..bytes.len().min(KEY_BYTES + 1)]);
        }
        if !whole {
            return;
        }
        let depth = way.levels.len().saturating_sub(1);
        let Some(level) = way.levels.last_mut() else { return };
        let named = |name: &[u8]| self.pointers.by_name(level.pointers, depth, name);
        level.next = Next::Field(match way.key.as_slice() {
            key if key.len() > KEY_BYTES => Several::default(),
            key if key.contains(&b'\\') => match serde_json::from_slice::<String>(key) {
                Ok(name) => named(name.as_bytes()),
                Err(_) => {
                    way.broken = true;
                    Several::default()
                }
            },
            [_, name @ .., _] => named(name),
            _ => Several::default(),
        });
        way.key.clear();
    }

    fn ends(&mut self, kind: Kind) {
        let way = &mut *self.way;
        match (kind.is_container(), way.beyond) {
            (true, 0) => drop(way.levels.pop()),
            (true, _) => way.beyond -= 1,
            (false, _) => {}
        }
        let level = way.levels.len();
        if way.beyond == 0
            && let Some(taking) = way.taking.pop_if(|taking| taking.level == level)
        {
            way.taken(taking, self.redaction);
        }
    }
}

impl Level {
    /// The pointers that go on with the value that begins now, `depth` segments down.
    fn next(&mut self, pointers: &Pointers, depth: usize) -> Several {
        match &mut self.next {
            Next::Element(index) => {
                let there = pointers.by_index(self.pointers, depth, *index);
                *index += 1;
                there
            }
            Next::Field(there) => *there,
        }
    }
}

impl Way {
    /// What these pointers named before does not count.
    fn forget(&mut self, pointers: Several) {
        self.found.retain(|(pointer, _)| !pointers.has(*pointer));
        self.too_large = self.too_large.without(pointers);
        self.crowded = self.crowded.without(pointers);
    }

    /// Keeps the bytes, where a value is under way that they are part of.
    fn take(&mut self, bytes: &[u8]) {
        while let Some(outermost) = self.taking.first() {
            let length = self.raw.len() + bytes.len();
            if self.taken + length > VALUES {
                self.too_large = self.too_large.with(outermost.pointers);
            } else if !self.room.has(length) {
                self.crowded = self.crowded.with(outermost.pointers);
            } else {
                self.raw.extend_from_slice(bytes);
                self.room.take(length);
                return;
            }
            self.give_up_the_outermost();
        }
    }

    /// The outermost value is not taken; those inside it may be.
    fn give_up_the_outermost(&mut self) {
        self.taking.remove(0);
        match self.taking.first().map(|taking| taking.start) {
            None => self.stop_taking(),
            Some(start) => {
                self.raw.drain(..start);
                self.taking.iter_mut().for_each(|taking| taking.start -= start);
                self.room.take(self.raw.len());
            }
        }
    }

    fn stop_taking(&mut self) {
        self.taking.clear();
        self.raw = Vec::new();
        self.room.take(0);
    }

    /// A value has ended.
    fn taken(&mut self, Taking { pointers, start, .. }: Taking, redaction: &Redaction) {
        let raw = &self.raw[start..];
        self.taken += raw.len().max(LEAST);
        match serde_json::from_slice::<Json>(raw) {
            Ok(value) => {
                let value = field(redaction, value);
                self.found.extend(pointers.places().map(|pointer| (pointer, value.clone())));
            }
            Err(_) => self.broken = true,
        }
        if self.taking.is_empty() {
            self.stop_taking();
        }
    }
}

impl Room {
    /// Whether there is room for so many bytes, in the place of what it has.
    fn has(&self, length: usize) -> bool {
        self.all.0.get() - self.own + length <= UNDER_WAY
    }

    /// Has so many bytes, in the place of what it had.
    fn take(&mut self, length: usize) {
        self.all.0.set(self.all.0.get() - self.own + length);
        self.own = length;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.take(0);
    }
}

fn field(redaction: &Redaction, value: Json) -> Value {
    match redaction.value(value) {
        // A container's text is masked value by value; its keys are text, too.
        container @ (Json::Array(_) | Json::Object(_)) => Value::Text(redaction.text(&container.to_string())),
        Json::String(text) => Value::Text(redaction.text(&text)),
        Json::Bool(flag) => Value::Flag(flag),
        Json::Null => Value::from("null"),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::Uint(number),
            (None, Some(number)) => Value::Int(number),
            (None, None) => Value::Text(number.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that follow from a seed (SplitMix64), so that a failure can be repeated.
    struct Seed(u64);

    impl Seed {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % limit
        }

        /// A value as text, of names and values that meet often.
        fn value(&mut self, depth: u64) -> String {
            const NAMES: [&str; 6] = ["a", "b", "0", "", "\\u0061", "x\\\"y"];
            const LEAVES: [&str; 7] = ["1", "-2.5", "true", "null", "\"text\"", "\"\\u0041]\\\\\"", " \"}\" "];
            let length = self.below(4);
            match self.below(if depth > 3 { 1 } else { 3 }) {
                0 => LEAVES[self.below(7) as usize].to_owned(),
                1 => format!("[{}]", (0..length).map(|_| self.value(depth + 1)).collect::<Vec<_>>().join(" ,")),
                _ => {
                    let name = |seed: &mut Self| NAMES[seed.below(6) as usize];
                    let fields = (0..length).map(|_| format!("\"{}\": {}", name(self), self.value(depth + 1)));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
                }
            }
        }
    }

    /// A reader that builds the whole tree answers, too.
    #[test]
    fn what_pointers_name_is_what_they_name_in_the_tree() {
        let texts = ["", "/a", "/a/a", "/a/0", "/0", "/0/a", "/1/b/0", "/", "/a/", "/x\"y", "/b/1", "/0/0/0", "/a/b/0"];
        let pointers = Pointers::new("", "", texts.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        let (redaction, under_way) = (Redaction::none(), UnderWay::default());
        let (mut seed, mut found) = (Seed(7), 0);
        for _ in 0..3000 {
            let body = seed.value(0);
            let document: Json = serde_json::from_str(&body).unwrap();
            let wanted = texts.iter().enumerate().filter_map(|(index, text)| Some((index, document.pointer(text)?.clone())));
            let wanted: Vec<_> = wanted.map(|(index, value)| (index, field(&redaction, value))).collect();
            found += wanted.len();
            let mut following = Following::new(&under_way);
            let size = 1 + seed.below(9) as usize;
            for piece in body.as_bytes().chunks(size) {
                following.feed(&pointers, &redaction, piece);
            }
            following.end(&pointers, &redaction);
            assert_eq!((following.state(), following.found()), (State::Whole, wanted), "{body} in pieces of {size}");
        }
        assert!(found > 5000, "{found}");
        assert_eq!(under_way.0.get(), 0);
    }
}
