//! Bytes read as what a filter does: which of the host's functions it calls, with what, and what it answers. The filter is
//! compiled once and finds the script in its configuration, so that a run of another one takes microseconds.

use crate::whole::{self, Given, Whole};
use std::fmt::Write as _;

/// A function of the host's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    /// What each parameter means: `n` is a number, `h` one of a handle, `l` one of 64 bits, `o` a place to write to, `t` the two numbers of a
    /// text, `m` those of a map; and of the typed contract `p`, `s`, `c` and `f` are those of a list of pairs, of names, of
    /// changes and of attributes, and `r` the place of TLS settings.
    pub(crate) parameters: &'static str,
    pub(crate) result: &'static str,
}

/// Where things lie in the filter's memory. The first are places for what the host writes and, from `KEPT` on, for what the
/// filter was called with; `LAST` is what the last call answered.
pub(crate) const KEPT: usize = 64;
const LAST: usize = 112;
const TEXTS: usize = 128;
/// Zeros, which is how the typed contract says that there is no error.
pub(crate) const NO_ERROR: usize = (8 << 10) - 64;
const SCRIPT: usize = 8 << 10;
const HEAP: usize = 80 << 10;
const HEAP_END: usize = 192 << 10;
/// Pages of memory.
const PAGES: usize = 4;
/// The longest script. Where the filter reads it, it takes twice as much of what `HEAP` begins.
const MOST: usize = 32 << 10;

/// What is no number of a function.
const ANSWER: u8 = 255;
const MAKE_ROOM_SO: u8 = 254;
const DATA: u8 = 253;

/// Numbers that are on an edge of something: of the memory, of its pages, of a sum, of what lies in it.
const EDGES: [u32; 20] = [
    0,
    1,
    3,
    7,
    63,
    255,
    1024,
    4096,
    4097,
    0xffff,
    0x1_0000,
    0x3_fff8,
    0x3_fffc,
    0x3_ffff,
    0x4_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
];

/// A script that is being made of bytes.
pub(crate) struct Script<'a> {
    rest: &'a [u8],
    functions: &'a [Function],
    texts: &'a [&'a str],
    wholes: &'a [Whole],
    made: Vec<u8>,
}

/// An argument, literally or where it lies.
#[derive(Clone, Copy)]
enum Argument {
    Is(u64),
    LiesAt(u64),
}

/// What an element of a list consists of.
#[derive(Clone, Copy)]
enum Part {
    /// The place of a text, and its length.
    Text,
    Case,
    /// What lies before a number of 64 bits.
    Gap,
}

impl<'a> Script<'a> {
    /// What `bytes` say that a filter does, which imports `functions` and knows `texts`.
    pub(crate) fn of(bytes: &'a [u8], functions: &'a [Function], texts: &'a [&'a str], wholes: &'a [Whole]) -> Self {
        Self { rest: bytes, functions, texts, wholes, made: Vec::new() }
    }

    /// Has the filter answer so many of its first callbacks at once, with 0.
    pub(crate) fn after(mut self, callbacks: usize) -> Self {
        for _ in 0..callbacks {
            self.push(ANSWER, &[Argument::Is(0)]);
        }
        self
    }

    /// All of it, as the filter is given it: each byte as two letters.
    pub(crate) fn letters(mut self) -> String {
        while !self.rest.is_empty() && self.made.len() < MOST {
            match self.byte() {
                0xe0.. => {
                    let answer = self.answer();
                    self.push(ANSWER, &[Argument::Is(answer)]);
                }
                0xdc.. => {
                    let so = self.room();
                    self.push(MAKE_ROOM_SO, &[Argument::Is(so)]);
                }
                which @ 0xc0.. => self.call_whole(usize::from(which) % self.wholes.len()),
                which => self.call(usize::from(which) % self.functions.len()),
            }
        }
        self.made.truncate(MOST);
        let letter = |nibble: u8| char::from(b'a' + nibble);
        self.made.iter().flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]).collect()
    }

    fn call(&mut self, which: usize) {
        let mut arguments = Vec::new();
        for kind in self.functions[which].parameters.chars() {
            self.draw(kind, &mut arguments);
        }
        self.push(which as u8, &arguments);
    }

    /// Makes a call as it is given, or with one parameter of it drawn.
    fn call_whole(&mut self, which: usize) {
        let Whole { function, given } = self.wholes[which];
        let which = self.functions.iter().position(|known| known.name == function).expect("a function of the host's");
        let parameters = self.functions[which].parameters;
        assert_eq!(parameters.len(), given.len(), "{function}");
        let drawn = usize::from(self.byte()) % (2 * given.len());
        let mut arguments = Vec::new();
        for (index, (kind, given)) in parameters.chars().zip(given).enumerate() {
            let bytes = match given {
                _ if index == drawn => {
                    self.draw(kind, &mut arguments);
                    continue;
                }
                Given::Number(number) => {
                    arguments.push(Argument::Is(u64::from(*number)));
                    continue;
                }
                Given::LiesAt(at) => {
                    arguments.push(Argument::LiesAt(u64::from(*at)));
                    continue;
                }
                Given::Text(text) => text.as_bytes().to_vec(),
                Given::Map(fields) => whole::map(fields),
            };
            let at = self.data(&bytes);
            arguments.extend([Argument::Is(at.into()), Argument::Is(bytes.len() as u64)]);
        }
        self.push(which as u8, &arguments);
    }

    /// Draws what a parameter of this kind is given.
    fn draw(&mut self, kind: char, arguments: &mut Vec<Argument>) {
        let (at, count) = match kind {
            'n' => return arguments.push(self.number()),
            'h' => return arguments.push(self.handle()),
            'l' => return arguments.push(self.long()),
            'o' => return arguments.push(self.place()),
            'r' => {
                let at = self.settings();
                return arguments.push(Argument::Is(at.into()));
            }
            't' => self.text(),
            'm' => self.map(),
            'p' => self.list(&[Part::Text, Part::Text]),
            's' => self.list(&[Part::Text]),
            'c' => self.list(&[Part::Case, Part::Text, Part::Text]),
            'f' => self.list(&[Part::Text, Part::Case, Part::Gap, Part::Text]),
            other => panic!("{other} is no kind of parameter"),
        };
        arguments.extend([Argument::Is(at.into()), Argument::Is(count.into())]);
    }

    fn push(&mut self, what: u8, arguments: &[Argument]) {
        self.made.push(what);
        for argument in arguments {
            let (lies, number) = match *argument {
                Argument::Is(number) => (0, number),
                Argument::LiesAt(at) => (1, at),
            };
            self.made.push(lies);
            self.made.extend(number.to_le_bytes());
        }
    }

    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    fn taken(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn whole(&mut self) -> u64 {
        let mut whole = [0; 8];
        let taken = self.taken(8);
        whole[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(whole)
    }

    fn edge(&mut self) -> u32 {
        EDGES[usize::from(self.byte()) % EDGES.len()]
    }

    /// A small number most of the time, or one that the filter was handed.
    fn number(&mut self) -> Argument {
        match self.byte() {
            small @ ..0x80 => Argument::Is(u64::from(small) % 4),
            small @ 0x80..0xa0 => Argument::Is(u64::from(small) % 32),
            kept @ 0xa0..0xe0 => Argument::LiesAt(u64::from(kept) % 32 * 4),
            0xe0..0xf0 => Argument::Is(self.edge().into()),
            _ => Argument::Is(self.whole() & u64::from(u32::MAX)),
        }
    }

    /// What the filter was lent or has made most of the time.
    fn handle(&mut self) -> Argument {
        match self.byte() {
            held @ ..0xf4 => Argument::LiesAt([KEPT + 8, KEPT + 12, KEPT + 16, LAST][usize::from(held) % 4] as u64),
            _ => self.number(),
        }
    }

    fn long(&mut self) -> Argument {
        match self.byte() {
            small @ ..0x80 => Argument::Is(small.into()),
            kept @ 0x80..0xc0 => Argument::LiesAt(u64::from(kept) % 16 * 8),
            0xc0..0xe0 => Argument::Is(i64::from(self.edge().cast_signed()).cast_unsigned()),
            0xe0..0xf0 => Argument::Is(self.text().0.into()),
            _ => Argument::Is(self.whole()),
        }
    }

    fn place(&mut self) -> Argument {
        match self.byte() {
            good @ ..0xf8 => Argument::Is(u64::from(good) % 6 * 8),
            _ => Argument::Is(self.edge().into()),
        }
    }

    /// What a callback answers: one of few numbers most of the time.
    fn answer(&mut self) -> u64 {
        match self.byte() {
            usual @ ..0x80 => u64::from(usual) % 4,
            usual @ 0x80..0xf8 => u64::from(usual) % 8,
            _ => self.edge().into(),
        }
    }

    /// How the filter makes room from now on; 0 is as it should.
    fn room(&mut self) -> u64 {
        match self.byte() {
            good @ ..0xe0 => u64::from(good) % 6,
            _ => self.edge().into(),
        }
    }

    /// Where a text lies, and its length: one that is known, one that the bytes hold, or none.
    fn text(&mut self) -> (u32, u32) {
        match self.byte() {
            which @ ..0x90 => {
                let which = usize::from(which) % self.texts.len();
                let before: usize = self.texts[..which].iter().map(|text| text.len()).sum();
                ((TEXTS + before) as u32, self.texts[which].len() as u32)
            }
            length @ 0x90..0xfa => {
                let bytes = self.taken((usize::from(length) - 0x90) * 2);
                (self.data(bytes), bytes.len() as u32)
            }
            _ => (self.edge(), self.edge()),
        }
    }

    /// The number itself, or sometimes another one.
    fn perhaps(&mut self, number: u32) -> u32 {
        if self.byte() < 0xfa { number } else { self.edge() }
    }

    /// Has bytes lie somewhere on their way through the script, at a place that is a multiple of 8.
    fn data(&mut self, bytes: &[u8]) -> u32 {
        // What stands before it: its own number, whether it lies elsewhere, and 8 bytes of a number.
        let padding = (SCRIPT + self.made.len() + 10).wrapping_neg() % 8;
        self.push(DATA, &[Argument::Is((padding + bytes.len()) as u64)]);
        self.made.extend(std::iter::repeat_n(0, padding));
        let at = SCRIPT + self.made.len();
        self.made.extend_from_slice(bytes);
        at as u32
    }

    /// A map as Proxy-Wasm has it: a count, the lengths, and the texts with a zero behind each.
    fn map(&mut self) -> (u32, u32) {
        let count = self.byte() % 6;
        let (mut lengths, mut texts) = (Vec::new(), Vec::new());
        for _ in 0..u32::from(count) * 2 {
            let text: &[u8] = match self.byte() {
                which @ ..0xc0 => self.texts[usize::from(which) % self.texts.len()].as_bytes(),
                length => self.taken((usize::from(length) - 0xc0) * 2),
            };
            lengths.extend(self.perhaps(text.len() as u32).to_le_bytes());
            texts.extend_from_slice(text);
            texts.push(0);
        }
        let count = self.perhaps(count.into()).to_le_bytes();
        let bytes = [&count[..], &lengths, &texts].concat();
        let at = self.data(&bytes);
        (at, self.perhaps(bytes.len() as u32))
    }

    /// A list of elements that consist of these parts.
    fn list(&mut self, parts: &[Part]) -> (u32, u32) {
        let count = self.byte() % 6;
        let mut elements = Vec::new();
        for _ in 0..count {
            for part in parts {
                match part {
                    Part::Text => {
                        let (at, length) = self.text();
                        elements.extend([at, length]);
                    }
                    Part::Case => elements.push(u32::from(self.byte()) % 8),
                    Part::Gap => elements.push(0),
                }
            }
        }
        let bytes: Vec<u8> = elements.into_iter().flat_map(u32::to_le_bytes).collect();
        let at = self.data(&bytes);
        (self.perhaps(at), self.perhaps(count.into()))
    }

    /// TLS settings as the contract has them, whose fields may each be absent.
    fn settings(&mut self) -> u32 {
        let there = |script: &mut Self| u32::from(script.byte() % 3);
        let mut words = vec![there(self) | u32::from(self.byte() % 4) << 8];
        let text = |script: &mut Self| {
            let there = there(script);
            let (at, length) = script.text();
            [there, at, length]
        };
        let sni = text(self);
        words.extend(sni);
        let names_there = there(self);
        let (names, name_count) = self.list(&[Part::Text]);
        words.extend([names_there, names, name_count]);
        let trust = text(self);
        words.extend(trust);
        words.push(there(self) | u32::from(self.byte() % 4) << 8);
        let protocols_there = there(self);
        let (protocols, protocol_count) = match self.byte() % 4 {
            3 => self.text(),
            count => {
                let protocols = [self.byte() % 3, self.byte() % 3];
                (self.data(&protocols), u32::from(count).min(2))
            }
        };
        words.extend([protocols_there, protocols, protocol_count]);
        let certificate = text(self);
        words.extend(certificate);
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let at = self.data(&bytes);
        self.perhaps(at)
    }
}

/// The imports of a filter that can call all of `functions`.
pub(crate) fn imports(functions: &[Function]) -> String {
    let mut text = String::new();
    for (number, Function { module, name, parameters, result }) in functions.iter().enumerate() {
        let parameters = types(parameters);
        let result = if result.is_empty() { String::new() } else { format!("(result {result})") };
        let _ = writeln!(text, r#"(import "{module}" "{name}" (func $f{number} (param{parameters}) {result}))"#);
    }
    text
}

/// The types of parameters of these kinds.
pub(crate) fn types(parameters: &str) -> String {
    let of = |kind| match kind {
        'l' => " i64",
        'n' | 'h' | 'o' | 'r' => " i32",
        _ => " i32 i32",
    };
    parameters.chars().map(of).collect()
}

/// What follows the imports: the memory, `$room` that makes room of a size, `$load` that takes a script of so many letters
/// from a place, and `$run` that goes on with it up to the next answer.
pub(crate) fn fields(functions: &[Function], texts: &[&str]) -> String {
    let length: usize = texts.iter().map(|text| text.len()).sum();
    assert!(TEXTS + length < NO_ERROR, "texts end before what lies behind them");
    let texts: String = texts.iter().flat_map(|text| text.bytes()).map(|byte| format!("\\{byte:02x}")).collect();
    let memory = format!(
        r#"(memory (export "memory") {PAGES})
        (data (i32.const {TEXTS}) "{texts}")
        (global $at (mut i32) (i32.const {SCRIPT}))
        (global $end (mut i32) (i32.const {SCRIPT}))
        (global $heap (mut i32) (i32.const {HEAP}))
        (global $so (mut i32) (i32.const 0))"#
    );
    [memory, reading(), making_room(), running(functions.len()), calling(functions)].concat()
}

/// How a script is taken from where it was handed over, and read number by number.
fn reading() -> String {
    format!(
        "(func $load (param $from i32) (param $letters i32) (local $to i32)
            (local.set $to (i32.const {SCRIPT}))
            (global.set $end (i32.add (i32.const {SCRIPT}) (i32.shr_u (local.get $letters) (i32.const 1))))
            (block (loop
                (br_if 1 (i32.ge_u (local.get $to) (global.get $end)))
                (i32.store8 (local.get $to) (i32.or
                    (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
                    (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
                (local.set $from (i32.add (local.get $from) (i32.const 2)))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (br 0))))
        (func $byte (result i32)
            (i32.load8_u (global.get $at))
            (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func $long (result i64) (local $lies i32) (local $number i64)
            (local.set $lies (call $byte))
            (local.set $number (i64.load align=1 (global.get $at)))
            (global.set $at (i32.add (global.get $at) (i32.const 8)))
            (if (result i64) (local.get $lies)
                (then (i64.load align=1 (i32.and (i32.wrap_i64 (local.get $number)) (i32.const 127))))
                (else (local.get $number))))
        (func $int (result i32) (i32.wrap_i64 (call $long)))"
    )
}

/// Room for what the host hands over: well made, none, a trap, with more memory, in the midst of further calls, at an odd place,
/// or wherever the script says.
fn making_room() -> String {
    let so = |number: u32, what: &str| format!("(if (i32.eq (global.get $so) (i32.const {number})) (then {what}))");
    let place = "(return (local.get $place))";
    let ways = [
        so(0, place),
        so(1, "(return (i32.const 0))"),
        so(2, "(unreachable)"),
        so(3, &format!("(drop (memory.grow (i32.const 1))) {place}")),
        so(4, &format!("(drop (call $run)) {place}")),
        so(5, "(return (i32.add (local.get $place) (i32.const 1)))"),
    ];
    format!(
        "(func $room (param $size i32) (result i32) (local $place i32)
            (local.set $place (global.get $heap))
            (global.set $heap (i32.and (i32.add (i32.add (local.get $place) (local.get $size)) (i32.const 7)) (i32.const -8)))
            (if (i32.gt_u (global.get $heap) (i32.const {HEAP_END})) (then (global.set $heap (i32.const {HEAP}))))
            {}
            (global.get $so))",
        ways.concat()
    )
}

/// The loop through the script. What the host writes may lie in it, so nothing in it makes it go back.
fn running(functions: usize) -> String {
    format!(
        "(func $run (result i32) (local $what i32)
            (loop $next
                (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
                (local.set $what (call $byte))
                (if (i32.lt_u (local.get $what) (i32.const {functions})) (then
                    (i32.store (i32.const {LAST}) (call_indirect (result i32) (local.get $what)))
                    (br $next)))
                (if (i32.eq (local.get $what) (i32.const {ANSWER})) (then (return (call $int))))
                (if (i32.eq (local.get $what) (i32.const {MAKE_ROOM_SO})) (then (global.set $so (call $int)) (br $next)))
                (if (i32.eq (local.get $what) (i32.const {DATA})) (then
                    (global.set $at (i32.add (i32.and (call $int) (i32.const 65535)) (global.get $at)))))
                (br $next))
            (unreachable))"
    )
}

/// Every function, called with what follows in the script.
fn calling(functions: &[Function]) -> String {
    let mut text = String::from("(table funcref (elem");
    for number in 0..functions.len() {
        let _ = write!(text, " $do{number}");
    }
    text.push_str("))");
    for (number, Function { parameters, result, .. }) in functions.iter().enumerate() {
        let types = types(parameters);
        let taken = types.split_whitespace().map(|kind| if kind == "i64" { "(call $long)" } else { "(call $int)" });
        let call = format!("(call $f{number} {})", taken.collect::<String>());
        let answer = match *result {
            "" => format!("{call} (i32.const 0)"),
            "i64" => format!("(i32.wrap_i64 {call})"),
            _ => call,
        };
        let _ = writeln!(text, "(func $do{number} (result i32) {answer})");
    }
    text
}

/// Keeps what a function was called with, of this many parameters of which the first is `$p0`, where scripts find it.
pub(crate) fn keep(parameters: usize) -> String {
    let store = |number| format!("(i32.store (i32.const {}) (local.get $p{number}))", KEPT + number * 4);
    (0..parameters).map(store).collect()
}
