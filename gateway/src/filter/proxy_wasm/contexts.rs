//! The contexts of a VM by their numbers. A number names one context for as long as it lives, and for long after it no
//! other: its place is used again, with another number. Pure.

/// Bits of a number that say which place it is; the others count how often the place was used.
const PLACE_BITS: u32 = 18;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

/// What is kept for each context.
#[derive(Debug)]
pub(super) struct Contexts<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    most: usize,
}

#[derive(Debug)]
struct Place<T> {
    uses: u32,
    kept: Option<T>,
}

impl<T> Contexts<T> {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), most: most.min(PLACE as usize) }
    }

    /// Another one; none where there are too many.
    pub(super) fn insert(&mut self, kept: T) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.uses = (place.uses + 1) & (u32::MAX >> PLACE_BITS);
            place.kept = Some(kept);
            return Some(number(index, place.uses));
        }
        if self.places.len() >= self.most {
            return None;
        }
        let index = u32::try_from(self.places.len()).ok()?;
        self.places.push(Place { uses: 0, kept: Some(kept) });
        Some(number(index, 0))
    }

    pub(super) fn get(&self, context: u32) -> Option<&T> {
        let place = self.places.get(index(context)?)?;
        place.kept.as_ref().filter(|_| place.uses == uses(context))
    }

    pub(super) fn get_mut(&mut self, context: u32) -> Option<&mut T> {
        let place = self.places.get_mut(index(context)?)?;
        place.kept.as_mut().filter(|_| place.uses == uses(context))
    }

    pub(super) fn remove(&mut self, context: u32) -> Option<T> {
        let at = index(context)?;
        let place = self.places.get_mut(at)?;
        if place.uses != uses(context) {
            return None;
        }
        let kept = place.kept.take()?;
        self.free.push(u32::try_from(at).ok()?);
        Some(kept)
    }

    /// Whether this number was given to a context, now or before.
    pub(super) fn was_given(&self, context: u32) -> bool {
        let place = index(context).and_then(|at| self.places.get(at));
        place.is_some_and(|place| uses(context) <= place.uses)
    }

    /// All that are there.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = (0_u32..).zip(&mut self.places);
        places.filter_map(|(index, place)| Some((number(index, place.uses), place.kept.as_mut()?)))
    }
}

/// Never 0, which stands for no context at all.
fn number(index: u32, uses: u32) -> u32 {
    uses << PLACE_BITS | (index + 1)
}

fn index(context: u32) -> Option<usize> {
    usize::try_from((context & PLACE).checked_sub(1)?).ok()
}

fn uses(context: u32) -> u32 {
    context >> PLACE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_context() {
        let mut contexts = Contexts::new(2);
        let one = contexts.insert("one").unwrap();
        let two = contexts.insert("two").unwrap();
        assert_eq!((one, two), (1, 2));
        assert_eq!(contexts.insert("three"), None, "there may be two");
        assert_eq!(contexts.remove(one), Some("one"));
        let three = contexts.insert("three").unwrap();
        assert_ne!(three, one, "its place is used again, its number is not");
        assert_eq!((contexts.get(one), contexts.get(three)), (None, Some(&"three")));
        assert_eq!(contexts.remove(one), None);
        assert!(contexts.was_given(one) && contexts.was_given(three));
        assert!(!contexts.was_given(0) && !contexts.was_given(3) && !contexts.was_given(u32::MAX));
        assert_eq!(contexts.iter_mut().map(|(number, _)| number).collect::<Vec<_>>(), [three, two]);
    }

    #[test]
    fn numbers_go_round_and_are_never_zero() {
        let mut contexts = Contexts::new(1);
        for _ in 0..20_000 {
            let one = contexts.insert(()).unwrap();
            assert_ne!(one, 0);
            assert!(contexts.get_mut(one).is_some());
            contexts.remove(one).unwrap();
        }
    }
}
