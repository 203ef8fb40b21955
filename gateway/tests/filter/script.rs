//! Bytes read as what a filter does: which of the host's functions it calls, with what, and what it answers. The filter is
//! compiled once and finds the script in its configuration, so that a run of another one takes microseconds.

use crate::whole::{self, Given, Whole};

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
pub(crate) const LAST: usize = 112;
pub(crate) const TEXTS: usize = 128;
/// Zeros, which is how the typed contract says that there is no error.
pub(crate) const NO_ERROR: usize = (8 << 10) - 64;
pub(crate) const SCRIPT: usize = 8 << 10;
pub(crate) const HEAP: usize = 80 << 10;
/// The longest script. Where the filter reads it, it takes twice as much of what `HEAP` begins.
const MOST: usize = 32 << 10;

/// What is no number of a function.
pub(crate) const ANSWER: u8 = 255;
pub(crate) const MAKE_ROOM_SO: u8 = 254;
pub(crate) const DATA: u8 = 253;
pub(crate) const DEMAND_ZERO: u8 = 252;

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

    /// Has the filter make these of its whole calls as they are given, and trap where the last of them has left something else than
    /// 0 at a place.
    pub(crate) fn making(mut self, calls: &[usize], place: usize) -> Self {
        for &which in calls {
            let nothing_drawn = self.wholes[which].given.len() as u8;
            self.call_drawn(which, nothing_drawn);
        }
        self.push(DEMAND_ZERO, &[Argument::LiesAt(place as u64)]);
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
        let drawn = self.byte();
        self.call_drawn(which, drawn);
    }

    fn call_drawn(&mut self, which: usize, drawn: u8) {
        let Whole { function, given } = self.wholes[which];
        let which = self.functions.iter().position(|known| known.name == function).expect("a function of the host's");
        let parameters = self.functions[which].parameters;
        assert_eq!(parameters.len(), given.len(), "{function}");
        let drawn = usize::from(drawn) % (2 * given.len());
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
