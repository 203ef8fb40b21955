//! A tunnel's way through its route's filters: what waits before each of them, in both directions, and what has passed
//! the last.

use super::{Fate, Run, Steps};
use crate::{
    fault::Fault,
    filter::{
        message::Kind,
        passage::Halt,
        proxy_wasm::{Fallen, Passed, Standing},
    },
};
use bytes::Bytes;
use std::{mem, rc::Rc, task::Waker};
use tidegate_policy::{Reason, route::OnError};

/// A tunnel in its filters. Its record closes it.
#[derive(Debug)]
pub struct Conduit {
    steps: Rc<Steps>,
    up: Lane,
    down: Lane,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the caller to the upstream.
    Up,
    /// From the upstream to the caller.
    Down,
}

/// One direction: the inlet of each filter, in the order in which they see it, and at last what is to be sent. A filter is
/// shown something only when nothing waits behind it: before and in each there is never more than its limit.
#[derive(Debug)]
struct Lane(Vec<Inlet>);

/// What waits before a filter.
#[derive(Debug, Default)]
struct Inlet {
    data: Bytes,
    /// Whether nothing follows it.
    end: bool,
    /// What came back from the filter, which is left out from now on.
    left: Bytes,
    /// Whether the filter has the end.
    ended: bool,
}

impl Run {
    /// Begins the tunnel: every filter hears of it. An error where one of them does not let it begin.
    pub fn conduit(&self) -> Result<Conduit, Fault> {
        let lane = || Lane((0..=self.0.len()).map(|_| Inlet::default()).collect());
        let mut conduit = Conduit { steps: Rc::clone(&self.0), up: lane(), down: lane() };
        conduit.run(Waker::noop())?;
        Ok(conduit)
    }
}

impl Conduit {
    /// How many bytes may be read for this direction now.
    pub fn room(&self, way: Way) -> usize {
        if !self.lane(way).0[0].is_nothing() {
            return 0;
        }
        let mut indices = (0..self.steps.len()).map(|place| self.index(way, place));
        let Some(first) = indices.find(|index| self.steps.takes_part(*index)) else { return usize::MAX };
        let held = self.steps.vm(first).map_or(0, |(vm, trail)| vm.held_bytes(trail, way.kind()));
        self.steps.body_bytes(first).saturating_sub(held)
    }

    /// Takes what was read, for which there was room.
    pub fn push(&mut self, way: Way, data: Bytes) {
        self.lane_mut(way).0[0].data = data;
    }

    /// Takes note that nothing follows in this direction.
    pub fn end(&mut self, way: Way) {
        self.lane_mut(way).0[0].end = true;
        self.hung_up(way);
    }

    /// Takes note that the peer where this direction comes from has ended its connection or broken it off.
    pub fn hung_up(&self, way: Way) {
        for index in 0..self.steps.len() {
            if let Some((vm, trail)) = self.steps.vm(index) {
                vm.hung_up(trail, way.kind());
            }
        }
    }

    /// What has passed all filters in this direction and is to be sent.
    pub fn out(&mut self, way: Way) -> &mut Bytes {
        let last = self.steps.len();
        &mut self.lane_mut(way).0[last].data
    }

    /// Whether nothing more will pass in this direction.
    pub fn is_over(&self, way: Way) -> bool {
        let last = &self.lane(way).0[self.steps.len()];
        last.data.is_empty() && last.end
    }

    /// Shows the filters what waits for them, and has go on what they let go of; whether anything did. `waker` is woken when they do more of that
    /// outside of callbacks about the tunnel. An error where one of them ends it.
    pub fn run(&mut self, waker: &Waker) -> Result<bool, Fault> {
        self.steps.lap();
        self.pump(waker).map_err(|halt| match halt {
            Halt::Fault(fault) => fault,
            Halt::Reply(_) => Fault::new(Reason::FilterReset, "a filter answered a tunnel"),
        })
    }

    fn pump(&mut self, waker: &Waker) -> Result<bool, Halt> {
        self.greet()?;
        for index in 0..self.steps.len() {
            if self.steps.vm(index).is_some_and(|(vm, trail)| vm.watch(trail, waker)) {
                return Err(self.steps.reset(index));
            }
        }
        let mut any = false;
        while self.advance(Way::Up)? | self.advance(Way::Down)? {
            any = true;
        }
        Ok(any)
    }

    /// Tells the filters that the tunnel begins, in order, as far as none of them stops it.
    fn greet(&self) -> Result<(), Halt> {
        for index in 0..self.steps.len() {
            if self.steps.each[index].fate.get() == Fate::Waiting {
                let begun = match self.steps.vm(index) {
                    Some((vm, trail)) => vm.connected(trail, &self.steps.known),
                    None => Err("it is no Proxy-Wasm filter, and no other is shown a tunnel: leave traffic out".into()),
                };
                self.steps.spent(index);
                match begun {
                    Ok(()) => self.steps.each[index].fate.set(Fate::Continued),
                    Err(reason) => self.steps.failed(index, reason)?,
                }
            }
            if self.steps.vm(index).is_some_and(|(vm, trail)| vm.stops(trail)) {
                break;
            }
        }
        Ok(())
    }

    /// Has something go on at each filter, the last one first; whether anything did.
    fn advance(&mut self, way: Way) -> Result<bool, Halt> {
        let mut any = false;
        for place in (0..self.steps.len()).rev() {
            if self.lane(way).0[place + 1].is_nothing() {
                any |= self.step(way, place)?;
            }
        }
        Ok(any)
    }

    fn step(&mut self, way: Way, place: usize) -> Result<bool, Halt> {
        let (index, kind) = (self.index(way, place), way.kind());
        let steps = Rc::clone(&self.steps);
        let Some((vm, trail)) = steps.vm(index) else { return Ok(self.lane_mut(way).pass_by(place)) };
        if steps.each[index].fate.get() == Fate::Waiting {
            return Ok(false);
        }
        let held = match vm.standing(trail, kind) {
            Standing::Open { held } => held,
            Standing::Stopped => return Ok(false),
            Standing::Closes => return Err(steps.reset(index)),
            Standing::LetsGo(data) => {
                self.lane_mut(way).hand_on(place, data);
                return Ok(true);
            }
            Standing::Lost => {
                self.fall(index, vm.fallen(trail, (kind, Bytes::new()), None))?;
                return Ok(true);
            }
        };
        let room = steps.body_bytes(index).saturating_sub(held);
        let Some(next) = self.lane_mut(way).0[place].next(room) else { return Ok(false) };
        let grows = !next.0.is_empty();
        let undoable = steps.chain.links[index].on_error == OnError::Skip;
        let passed = vm.pass(trail, kind, next, undoable);
        steps.spent(index);
        match passed {
            Ok(Passed::On(data)) => self.lane_mut(way).hand_on(place, data),
            Ok(Passed::Held) if grows && vm.held_bytes(trail, kind) >= steps.body_bytes(index) => steps.is_full(index),
            Ok(Passed::Held) => {}
            Ok(Passed::NoRoom) => return Err(steps.no_room(index)),
            Err(fallen) => self.fall(index, fallen)?,
        }
        Ok(true)
    }

    /// A filter failed. Where the tunnel goes on without it, so does what it had.
    fn fall(&mut self, index: usize, fallen: Fallen) -> Result<(), Halt> {
        let Fallen { reason, request, response } = fallen;
        self.steps.failed(index, reason)?;
        let place = self.index(Way::Down, index);
        self.up.0[index].left = request;
        self.down.0[place].left = response;
        Ok(())
    }

    /// The filter that is at this place of a direction, and the other way round.
    fn index(&self, way: Way, place: usize) -> usize {
        match way {
            Way::Up => place,
            Way::Down => self.steps.len() - 1 - place,
        }
    }

    fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn lane_mut(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

impl Way {
    /// The other way.
    #[must_use]
    pub fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Up => Kind::Request,
            Self::Down => Kind::Response,
        }
    }
}

impl Lane {
    /// Puts behind a filter what it lets go on, and the end where it has that.
    fn hand_on(&mut self, place: usize, data: Bytes) {
        let end = mem::take(&mut self.0[place].ended);
        let next = &mut self.0[place + 1];
        (next.data, next.end) = (data, end);
    }

    /// Has something go on where the filter at this place is left out; whether there was anything.
    fn pass_by(&mut self, place: usize) -> bool {
        let inlet = &mut self.0[place];
        if !inlet.left.is_empty() || inlet.ended {
            let left = mem::take(&mut inlet.left);
            self.hand_on(place, left);
            return true;
        }
        if inlet.is_nothing() {
            return false;
        }
        let (data, end) = (mem::take(&mut inlet.data), mem::take(&mut inlet.end));
        let next = &mut self.0[place + 1];
        (next.data, next.end) = (data, end);
        true
    }
}

impl Inlet {
    fn is_nothing(&self) -> bool {
        self.data.is_empty() && !self.end
    }

    /// What the filter is shown next, at most `room` bytes, and whether that is the end.
    fn next(&mut self, room: usize) -> Option<(Bytes, bool)> {
        let data = self.data.split_to(room.min(self.data.len()));
        let end = self.data.is_empty() && mem::take(&mut self.end);
        self.ended |= end;
        (!data.is_empty() || end).then_some((data, end))
    }
}

impl Steps {
    /// Counts that a filter holds as much of a tunnel as it may.
    fn is_full(&self, index: usize) {
        if let Ok(filter) = &self.chain.links[index].filter {
            filter.shared.metrics.tunnels_full.add(1);
        }
    }

    /// Adds the time since the last lap to what this filter took.
    fn spent(&self, index: usize) {
        let time = &self.each[index].time;
        time.set(time.get() + self.lap());
    }
}
