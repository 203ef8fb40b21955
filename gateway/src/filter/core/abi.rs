//! The canonical ABI as far as the contract needs it: what a call hands over is read where it lies in the guest's memory,
//! and what it gets is written where the guest's own allocator makes room. Every pointer, length, alignment and number of a
//! case is checked; what is wrong ends the guest's call, as it does in components.

use super::free_lists::FreeLists;
use crate::filter::{
    bindings::tidegate::filter::types::{Attr, HeaderOp},
    state::State,
};
use std::fmt;
use wasmtime::{Caller, Memory, Result, Store, Trap, TypedFunc, bail};

/// A guest's call of a host function.
pub(super) type Call<'a> = Caller<'a, State>;
/// `cabi_realloc`: the old place and its size, alignment, new size.
pub(super) type Realloc = TypedFunc<(u32, u32, u32, u32), u32>;
/// Where something lies in the guest's memory, and its length.
pub(super) type Span = (u32, u32);

/// What host functions need of an instance; nothing for one that is a component.
#[derive(Default)]
pub(in crate::filter) struct Abi {
    memory: Option<Memory>,
    /// Away while the guest runs and may call nothing: before its instance is there, and while it makes room or tidies up. In a box,
    /// since it is large to be taken away so often.
    realloc: Option<Box<Realloc>>,
    /// Where the guest's allocator keeps free blocks, if it lets the host take them.
    pub(super) free_lists: Option<FreeLists>,
}

impl Abi {
    pub(super) fn new(memory: Memory, realloc: Realloc) -> Self {
        Self { memory: Some(memory), realloc: Some(Box::new(realloc)), free_lists: None }
    }
}

impl fmt::Debug for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abi").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// The guest's memory as one call reads it, and how many bytes that call may still hand over.
pub(super) struct Lift<'a> {
    memory: &'a [u8],
    left: usize,
}

/// Begins a call that reads the guest's memory.
pub(super) fn enter<'a>(call: &'a mut Call<'_>) -> Result<(Lift<'a>, &'a mut State)> {
    let memory = memory(call.data())?;
    let (memory, state) = memory.data_and_store_mut(call);
    let left = state.limits.hostcall_bytes;
    Ok((Lift { memory, left }, state))
}

/// Begins a call that does not.
pub(super) fn state<'a>(call: &'a mut Call<'_>) -> Result<&'a mut State> {
    memory(call.data())?;
    Ok(call.data_mut())
}

/// The memory, unless the guest may call nothing now.
fn memory(state: &State) -> Result<Memory> {
    match &state.abi {
        Abi { memory: Some(memory), realloc: Some(_), free_lists: _ } => Ok(*memory),
        _ => Err(Trap::CannotLeaveComponent.into()),
    }
}

impl<'a> Lift<'a> {
    pub(super) fn bytes(&mut self, (at, length): Span) -> Result<&'a [u8]> {
        let Some(bytes) = range(self.memory, at, length as usize) else {
            bail!("list pointer/length out of bounds of memory");
        };
        self.spend(bytes.len())?;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, (at, length): Span) -> Result<&'a str> {
        let Some(bytes) = range(self.memory, at, length as usize) else {
            bail!("string pointer/length out of bounds of memory");
        };
        self.spend(bytes.len())?;
        Ok(str::from_utf8(bytes)?)
    }

    /// A text that is a field's name, as bytes: those are ASCII, which shows sooner than that they are text.
    pub(super) fn name(&mut self, at: Span) -> Result<&'a [u8]> {
        let name = self.bytes(at)?;
        if !name.is_ascii() {
            str::from_utf8(name)?;
        }
        Ok(name)
    }

    /// The elements of a list, which have this size. They count as what the host's own would take, since that is what they count as
    /// where the component layer copies them: a filter may hand over as much in either form.
    pub(super) fn list<const SIZE: usize>(&mut self, (at, count): Span, align: u32) -> Result<&'a [[u8; SIZE]]> {
        let bytes = (count as usize).checked_mul(SIZE).and_then(|length| range(self.memory, at, length));
        let Some(bytes) = bytes else {
            bail!("list pointer/length out of bounds of memory");
        };
        self.spend((count as usize).saturating_mul(const { copied(SIZE) }))?;
        if !is_aligned(at, align) {
            bail!("list pointer is not aligned");
        }
        Ok(bytes.as_chunks().0)
    }

    /// A record of this size. It is no list, and counts as nothing beside what it refers to.
    pub(super) fn record<const SIZE: usize>(&mut self, at: u32, align: u32) -> Result<&'a [u8; SIZE]> {
        if !is_aligned(at, align) {
            bail!("pointer not aligned");
        }
        let Some(record) = self.memory.get(at as usize..).and_then(<[u8]>::first_chunk) else {
            bail!("pointer out of bounds of memory");
        };
        Ok(record)
    }

    /// As much as a filter may hand over in one call, whatever it consists of.
    fn spend(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => bail!(
                "too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted"
            ),
        }
        Ok(())
    }
}

/// What the host's own element takes of a list whose elements have this size in the guest's memory. The contract has one kind of
/// list, or kinds alike, for each size; a list of another size does not compile before it stands here.
const fn copied(size: usize) -> usize {
    match size {
        8 => size_of::<String>(),
        16 => size_of::<(String, Vec<u8>)>(),
        20 => size_of::<HeaderOp>(),
        24 => size_of::<(String, Attr)>(),
        _ => panic!("no list of the contract has elements of this size"),
    }
}

/// Alignments are powers of two: a division takes as long as all else that is checked.
fn is_aligned(at: u32, align: u32) -> bool {
    at & (align - 1) == 0
}

fn range(memory: &[u8], at: u32, length: usize) -> Option<&[u8]> {
    let start = at as usize;
    memory.get(start..start.checked_add(length)?)
}

/// The number at this place of an element.
pub(super) fn number(element: &[u8], at: usize) -> u32 {
    element.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The place and length at this place of an element.
pub(super) fn span(element: &[u8], at: usize) -> Span {
    (number(element, at), number(element, at + 4))
}

/// The number of 64 bits at this place of an element.
pub(super) fn long(element: &[u8], at: usize) -> u64 {
    let (low, high) = span(element, at);
    u64::from(high) << 32 | u64::from(low)
}

/// The case of this number.
pub(super) fn case<T: Copy>(cases: &[T], number: u32) -> Result<T> {
    match cases.get(number as usize) {
        Some(case) => Ok(*case),
        None => bail!("unexpected discriminant: {number}"),
    }
}

/// A value that may be absent, by the number that says whether it is.
pub(super) fn option<T>(number: u32, value: T) -> Result<Option<T>> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(value)),
        _ => bail!("invalid option discriminant"),
    }
}

/// Makes room in the guest's memory: a free block of its allocator where there is one, else what it makes when it is called. Meanwhile it
/// may call nothing of the host.
fn allocate(call: &mut Call<'_>, align: u32, size: usize) -> Result<u32> {
    let size = u32::try_from(size)?;
    if let Some(lists) = call.data().abi.free_lists
        && let Some(block) = lists.take(memory(call.data())?.data_mut(&mut *call), align, size)
    {
        return Ok(block);
    }
    let Some(realloc) = call.data_mut().abi.realloc.take() else { return Err(Trap::CannotLeaveComponent.into()) };
    let made = realloc.call(&mut *call, (0, 0, align, size));
    call.data_mut().abi.realloc = Some(realloc);
    let at = made?;
    if !is_aligned(at, align) {
        bail!("realloc return: result not aligned");
    }
    Ok(at)
}

/// Hands bytes over: where they are, and how many.
pub(super) fn give(call: &mut Call<'_>, bytes: &[u8]) -> Result<Span> {
    let at = allocate(call, 1, bytes.len())?;
    let memory = memory(call.data())?.data_mut(call);
    let Some(room) = memory.get_mut(at as usize..).and_then(|room| room.get_mut(..bytes.len())) else {
        bail!("realloc return: beyond end of memory");
    };
    room.copy_from_slice(bytes);
    Ok((at, u32::try_from(bytes.len())?))
}

/// Hands a list over, whose elements are so many words each; what they refer to is handed over as they are made.
pub(super) fn give_list<T, const WORDS: usize>(
    call: &mut Call<'_>,
    count: usize,
    items: impl Iterator<Item = T>,
    mut element: impl FnMut(&mut Call<'_>, T) -> Result<[u32; WORDS]>,
) -> Result<Span> {
    let size = WORDS * 4;
    let at = allocate(call, 4, count * size)?;
    let memory = memory(call.data())?.data(&*call);
    if range(memory, at, count * size).is_none() {
        bail!("realloc return: beyond end of memory");
    }
    for (item, offset) in items.take(count).zip((0..).step_by(size)) {
        let words = element(call, item)?;
        put(call, at.saturating_add(offset), 4, words)?;
    }
    Ok((at, u32::try_from(count)?))
}

/// Writes a result of so many words where the guest wants it. What is shorter than a word has zeros behind it.
// In line the words stay in registers: written one by one and read as a whole, they would have to be stored first.
#[inline(always)]
pub(super) fn put<const WORDS: usize>(call: &mut Call<'_>, at: u32, align: u32, words: [u32; WORDS]) -> Result<()> {
    let room = room(call, at, align, WORDS * 4)?;
    for (room, word) in room.as_chunks_mut().0.iter_mut().zip(words) {
        *room = word.to_le_bytes();
    }
    Ok(())
}

/// Writes a result that is nothing, or the number of an error's case.
pub(super) fn put_done(call: &mut Call<'_>, at: u32, done: std::result::Result<(), u8>) -> Result<()> {
    let result = match done {
        Ok(()) => [0, 0],
        Err(case) => [1, case],
    };
    room(call, at, 1, 2)?.copy_from_slice(&result);
    Ok(())
}

fn room<'a>(call: &'a mut Call<'_>, at: u32, align: u32, size: usize) -> Result<&'a mut [u8]> {
    if !is_aligned(at, align) {
        bail!("pointer not aligned");
    }
    let memory = memory(call.data())?.data_mut(call);
    match memory.get_mut(at as usize..).and_then(|room| room.get_mut(..size)) {
        Some(room) => Ok(room),
        None => bail!("pointer out of bounds"),
    }
}

/// The halves of a number of 64 bits, the lower one first.
pub(super) const fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

/// A guest's memory after it has answered.
pub(super) fn answered(store: &Store<State>) -> Result<Lift<'_>> {
    let memory = memory(store.data())?.data(store);
    Ok(Lift { memory, left: store.data().limits.hostcall_bytes })
}

/// Calls what a guest tidies up with. Meanwhile it may call nothing of the host.
pub(super) fn tidy(store: &mut Store<State>, post_return: &TypedFunc<u32, ()>, answer: u32) -> Result<()> {
    let realloc = store.data_mut().abi.realloc.take();
    let done = post_return.call(&mut *store, answer);
    store.data_mut().abi.realloc = realloc;
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::engine;
    use std::sync::mpsc;
    use wasmtime::{Engine, Func, Instance, Module};

    fn lift(memory: &[u8], left: usize) -> Lift<'_> {
        Lift { memory, left }
    }

    #[test]
    fn nothing_outside_of_the_memory_is_read() {
        let memory = [b'a'; 16];
        for (span, good) in [
            ((0, 16), true),
            ((16, 0), true),
            ((0, 17), false),
            ((17, 0), false),
            ((u32::MAX, 1), false),
            ((8, u32::MAX), false),
        ] {
            assert_eq!(lift(&memory, 99).bytes(span).is_ok(), good, "{span:?}");
            assert_eq!(lift(&memory, 99).text(span).is_ok(), good, "{span:?}");
        }
        assert_eq!(lift(&memory, 99).list::<8>((8, 1), 4).unwrap().len(), 1);
        for (span, align) in [((8, 2), 4), ((0, u32::MAX), 4), ((u32::MAX, 1), 1), ((2, 1), 4), ((4, 1), 8)] {
            assert!(lift(&memory, 99).list::<8>(span, align).is_err(), "{span:?} {align}");
        }
        for (at, align, good) in [(8, 4, true), (12, 4, false), (6, 4, false), (u32::MAX, 1, false)] {
            assert_eq!(lift(&memory, 99).record::<8>(at, align).is_ok(), good, "{at} {align}");
        }
    }

    #[test]
    fn text_is_utf8_and_what_is_read_is_bounded() {
        assert!(lift(b"\xc3", 99).text((0, 1)).is_err());
        assert_eq!(lift("ä".as_bytes(), 99).text((0, 2)).unwrap(), "ä");
        let mut one = lift(b"0123456789", 12);
        assert!(one.bytes((0, 10)).is_ok() && one.bytes((0, 2)).is_ok());
        assert!(one.bytes((0, 1)).unwrap_err().to_string().contains("hostcalls"));
        assert!(one.bytes((0, 0)).is_ok());
    }

    #[test]
    fn numbers_are_little_endian_and_cases_are_checked() {
        let element = [1, 2, 0, 0, 3, 0, 0, 0x80];
        assert_eq!((span(&element, 0), long(&element, 0)), ((0x201, 0x8000_0003), 0x8000_0003_0000_0201));
        assert_eq!(halves(0x8000_0003_0000_0201), [0x201, 0x8000_0003]);
        assert_eq!(case(&['a', 'b'], 1).unwrap(), 'b');
        assert!(case(&['a', 'b'], 2).is_err() && case(&['a', 'b'], u32::MAX).is_err());
        assert_eq!((option(0, 'a').unwrap(), option(1, 'a').unwrap()), (None, Some('a')));
        assert!(option(2, 'a').is_err());
    }

    /// The size of a guest's memory: one page.
    const PAGE: u32 = 64 << 10;

    /// A store with a guest that has a page of memory, and whose allocator does this.
    fn store(realloc: &str) -> Store<State> {
        let engine = Engine::new(&engine::config()).unwrap();
        let text = format!(
            r#"(module (memory (export "memory") 1)
            (func (export "cabi_realloc") (param $at i32) (param i32) (param $align i32) (param $size i32) (result i32) {realloc}))"#
        );
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let mut store = Store::new(&engine, State::alone());
        store.set_epoch_deadline(1000);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let realloc = instance.get_typed_func(&mut store, "cabi_realloc").unwrap();
        store.data_mut().abi = Abi::new(memory, realloc);
        store
    }

    /// What comes of `work` in a call that a guest makes.
    fn called<R: Send + 'static>(
        store: &mut Store<State>,
        work: impl Fn(&mut Call<'_>) -> Result<R> + Send + Sync + 'static,
    ) -> std::result::Result<R, String> {
        let (done, came) = mpsc::channel();
        let host = Func::wrap(&mut *store, move |mut call: Call<'_>| {
            done.send(work(&mut call)?).unwrap();
            Ok(())
        });
        let host = host.typed::<(), ()>(&*store).unwrap();
        host.call(store, ()).map(|()| came.recv().unwrap()).map_err(|error| format!("{error:#}"))
    }

    fn bytes(store: &Store<State>, at: u32, length: usize) -> &[u8] {
        range(memory(store.data()).unwrap().data(store), at, length).unwrap()
    }

    #[test]
    fn what_the_guest_keeps_is_taken_before_it_is_asked() {
        let mut store = store("unreachable");
        store.data_mut().abi.free_lists = Some(FreeLists::at(64));
        called(&mut store, |call| put(call, 64, 4, [3, 1001, PAGE - 8, 4096])).unwrap();
        assert_eq!(called(&mut store, |call| give(call, b"taken")), Ok((4096, 5)));
        assert_eq!(bytes(&store, 4096, 5), b"taken");
        let outside = called(&mut store, |call| give(call, b"9 and more")).unwrap_err();
        assert!(outside.contains("beyond end of memory"), "{outside}");
        let asked = called(&mut store, |call| allocate(call, 4, 8)).unwrap_err();
        assert!(asked.contains("unreachable"), "what is not aligned is no block: {asked}");
    }

    #[test]
    fn results_are_written_whole_where_there_is_room_for_them() {
        let mut store = store("unreachable");
        assert_eq!(called(&mut store, |call| put(call, PAGE - 8, 4, [0x0403_0201, 5])), Ok(()));
        assert_eq!(bytes(&store, PAGE - 8, 8), [1, 2, 3, 4, 5, 0, 0, 0]);
        for (at, align, named) in [
            (PAGE - 4, 4, "out of bounds"),
            (PAGE, 4, "out of bounds"),
            (u32::MAX - 3, 4, "out of bounds"),
            (2, 4, "not aligned"),
            (4, 8, "not aligned"),
            (u32::MAX, 4, "not aligned"),
        ] {
            let said = called(&mut store, move |call| put(call, at, align, [u32::MAX; 2])).unwrap_err();
            assert!(said.contains(named), "{at}: {said}");
        }
        assert_eq!(bytes(&store, 0, 16), [0; 16]);
        assert_eq!(bytes(&store, PAGE - 8, 8), [1, 2, 3, 4, 5, 0, 0, 0], "nor the part that there was room for");
        assert_eq!(called(&mut store, |call| put_done(call, PAGE - 2, Err(7))), Ok(()));
        assert_eq!(bytes(&store, PAGE - 2, 2), [1, 7]);
        assert_eq!(called(&mut store, |call| put_done(call, PAGE - 2, Ok(()))), Ok(()));
        assert_eq!(bytes(&store, PAGE - 2, 2), [0, 0]);
        for at in [PAGE - 1, PAGE, u32::MAX] {
            assert!(called(&mut store, move |call| put_done(call, at, Ok(()))).unwrap_err().contains("out of bounds"), "{at}");
        }
    }

    #[test]
    fn bytes_are_given_where_the_guest_makes_room_in_its_memory() {
        for (realloc, length, given) in [
            ("i32.const 8", 3, Ok((8, 3))),
            ("i32.const 65533", 3, Ok((65533, 3))),
            ("i32.const 65536", 0, Ok((65536, 0))),
            ("i32.const 65534", 3, Err("beyond end of memory")),
            ("i32.const 65536", 1, Err("beyond end of memory")),
            ("i32.const 65537", 0, Err("beyond end of memory")),
            ("i32.const -1", 1, Err("beyond end of memory")),
            ("i32.const -2", 3, Err("beyond end of memory")),
            ("unreachable", 3, Err("unreachable")),
            // It is asked for as many bytes as there are, without an old place.
            (
                "(if (i32.or (local.get $at) (i32.ne (local.get $size) (i32.const 3))) (then unreachable)) i32.const 8",
                3,
                Ok((8, 3)),
            ),
        ] {
            let mut store = store(realloc);
            // Again, since a guest that failed once has not lost its allocator.
            for _ in 0..2 {
                let came = called(&mut store, move |call| give(call, &b"abc"[..length]));
                match given {
                    Ok(span) => {
                        assert_eq!(came, Ok(span), "{realloc}");
                        assert_eq!(bytes(&store, span.0, length), &b"abc"[..length]);
                    }
                    Err(named) => assert!(came.as_ref().is_err_and(|said| said.contains(named)), "{realloc}: {came:?}"),
                }
            }
        }
        let mut none = Store::new(&Engine::new(&engine::config()).unwrap(), State::alone());
        let came = called(&mut none, |call| give(call, b"abc"));
        assert!(came.as_ref().is_err_and(|said| said.contains("cannot leave")), "without a guest: {came:?}");
    }

    #[test]
    fn lists_are_given_whole_and_aligned_or_not_at_all() {
        let list = |call: &mut Call<'_>, count: usize| give_list(call, count, 0_u32.., |_, number| Ok([number, u32::MAX]));
        for (realloc, count, given) in [
            ("i32.const 16", 2, Ok((16, 2))),
            ("i32.const 65520", 2, Ok((65520, 2))),
            ("i32.const 65536", 0, Ok((65536, 0))),
            ("i32.const 65524", 2, Err("beyond end of memory")),
            ("i32.const -16", 2, Err("beyond end of memory")),
            ("i32.const -4", 2, Err("beyond end of memory")),
            ("i32.const 18", 2, Err("not aligned")),
            ("i32.const 16", 1 << 20, Err("beyond end of memory")),
            ("i32.const 16", 1 << 30, Err("")),
            ("(i32.mul (local.get $align) (i32.const 4))", 2, Ok((16, 2))),
        ] {
            let mut store = store(realloc);
            let came = called(&mut store, move |call| list(call, count));
            match given {
                Ok(span) => {
                    assert_eq!(came, Ok(span), "{realloc}");
                    let all: Vec<_> =
                        (0..count as u32).flat_map(|number| [number.to_le_bytes(), [0xff; 4]]).flatten().collect();
                    assert_eq!(bytes(&store, span.0, count * 8), all, "{realloc}");
                }
                Err(named) => {
                    assert!(came.as_ref().is_err_and(|said| said.contains(named)), "{realloc}: {came:?}");
                    assert_eq!(bytes(&store, 0, 64), [0; 64], "{realloc}");
                }
            }
        }
        // What elements refer to is given in between.
        let mut store = store("i32.const 64");
        let texts =
            |call: &mut Call<'_>| give_list(call, 1, [b"abc"].into_iter(), |call, text| give(call, text).map(<[u32; 2]>::from));
        assert_eq!(called(&mut store, texts), Ok((64, 1)));
        assert_eq!(bytes(&store, 64, 8), [64, 0, 0, 0, 3, 0, 0, 0], "it was written after what it refers to");
    }
}
