//! Which rules may match a request: postings by what they are about (service, host, suffix or anything) and, within
//! that, by the most selective thing they say of the caller. A posting is a hint: whoever reads it checks the rule whole,
//! so two keys with one hash cost time and change nothing.

use super::hosts::Depths;
use crate::{
    Host, HostPattern, Name,
    identity::Caller,
    rule::{Action, Rule},
    selector::{From, TextPattern, To},
};
use foldhash::{HashMap, quality::RandomState};
use std::{hash::BuildHasher, sync::Arc};

/// More keys than this from one rule, and it is listed under its targets alone: postings stay linear in the documents.
const MAX_KEYS_PER_RULE: usize = 4096;

/// All rules, found by what a request is about.
#[derive(Debug, Default)]
pub(crate) struct RuleIndex {
    /// Denying, then allowing, then reporting ones, each by name. A rule's number is its position here.
    rules: Vec<CompiledRule>,
    first_allow: u32,
    first_report: u32,
    seed: RandomState,
    /// By the hash of what a rule is about.
    places: HashMap<u64, Place>,
    /// By the hashes of what a rule is about and of whom.
    pairs: HashMap<u64, Stretch>,
    /// Ascending rule numbers, stretch by stretch.
    postings: Vec<u32>,
    exact_hosts: bool,
    depths: Depths,
}

/// A rule as decisions see it.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: Name,
    pub(crate) document: Arc<Rule>,
}

/// What the rules about one thing are.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    /// Rules that say nothing indexable of the caller.
    anyone: Stretch,
    /// Allow rules that credentials could satisfy; of those that differ only in `from`, the first.
    challenges: Stretch,
    /// The kinds of caller key under which `pairs` has more: bits of `Kind`.
    kinds: u8,
}

/// A piece of `postings`.
#[derive(Debug, Default, Clone, Copy)]
struct Stretch {
    start: u32,
    end: u32,
}

/// What a caller key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Kind {
    Principal = 1,
    /// A principal's beginning, up to and with a slash.
    PrincipalFolder = 2,
    ServiceAccount = 4,
    Namespace = 8,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, Hash)]
enum About<'a> {
    Anything,
    Service(&'a str),
    Host(&'a Host),
    Suffix(&'a str),
}

/// A caller key: one text of one kind.
type Whom<'a> = (Kind, &'a str);

impl RuleIndex {
    /// Indexes `rules`, which are in the order of their names.
    pub(super) fn new<'a>(rules: impl Iterator<Item = (&'a Name, &'a Arc<Rule>)> + Clone) -> Self {
        let mut index = Self::default();
        for action in [Action::Deny, Action::Allow, Action::Report] {
            match action {
                Action::Deny => {}
                Action::Allow => index.first_allow = number(index.rules.len()),
                Action::Report => index.first_report = number(index.rules.len()),
            }
            let chosen = rules.clone().filter(|(_, rule)| rule.action == action);
            index.rules.extend(chosen.map(|(name, rule)| CompiledRule { name: name.clone(), document: Arc::clone(rule) }));
        }
        index.fill();
        index
    }

    /// The rule with this number.
    pub(crate) fn rule(&self, number: u32) -> &CompiledRule {
        &self.rules[number as usize]
    }

    /// Shows `visit` every posting that may hold a rule about this request by this caller: ascending rule numbers split
    /// into denying, allowing and reporting ones. A rule may be in several.
    pub(crate) fn candidates(&self, service: Option<&Name>, host: &Host, caller: &Caller, mut visit: impl FnMut(Split<'_>)) {
        self.places_of(service, host, |key, place| {
            visit(self.split(place.anyone));
            self.whoms_of(caller, place.kinds, |whom| {
                if let Some(stretch) = self.pairs.get(&self.seed.hash_one((key, whom))) {
                    visit(self.split(*stretch));
                }
            });
        });
    }

    /// Whether some allow rule about this request, whose `from` credentials could satisfy, is one that `meets` accepts.
    pub(crate) fn challenges(&self, service: Option<&Name>, host: &Host, mut meets: impl FnMut(&Rule) -> bool) -> bool {
        let mut found = false;
        self.places_of(service, host, |_, place| {
            found = found || self.posting(place.challenges).iter().any(|&number| meets(&self.rule(number).document));
        });
        found
    }

    fn places_of(&self, service: Option<&Name>, host: &Host, mut visit: impl FnMut(u64, &Place)) {
        let mut look = |about: About<'_>| {
            let key = self.seed.hash_one(about);
            if let Some(place) = self.places.get(&key) {
                visit(key, place);
            }
        };
        look(About::Anything);
        if let Some(service) = service {
            look(About::Service(service.as_str()));
        }
        if self.exact_hosts {
            look(About::Host(host));
        }
        if let Host::Name(name) = host {
            self.depths.parents(name).for_each(|parent| look(About::Suffix(parent)));
        }
    }

    fn whoms_of<'a>(&self, caller: &'a Caller, kinds: u8, mut visit: impl FnMut(Whom<'a>)) {
        let mut whole = |kind: Kind, text: &'a Option<Arc<str>>| {
            if let Some(text) = text.as_deref().filter(|_| kinds & kind as u8 != 0) {
                visit((kind, text));
            }
        };
        whole(Kind::Principal, &caller.principal);
        whole(Kind::ServiceAccount, &caller.service_account);
        whole(Kind::Namespace, &caller.namespace);
        if let Some(principal) = caller.principal.as_deref().filter(|_| kinds & Kind::PrincipalFolder as u8 != 0) {
            let slashes = principal.bytes().enumerate().filter(|&(_, byte)| byte == b'/').take(MAX_FOLDERS);
            slashes.for_each(|(at, _)| visit((Kind::PrincipalFolder, &principal[..=at])));
        }
    }

    fn posting(&self, stretch: Stretch) -> &[u32] {
        &self.postings[stretch.start as usize..stretch.end as usize]
    }

    fn split(&self, stretch: Stretch) -> Split<'_> {
        let posting = self.posting(stretch);
        let (denies, rest) = posting.split_at(posting.partition_point(|&number| number < self.first_allow));
        let (allows, reports) = rest.split_at(rest.partition_point(|&number| number < self.first_report));
        Split { denies, allows, reports }
    }
}

/// The folders of a principal that are looked up and that patterns are listed under; a SPIFFE identity of Istio has six.
const MAX_FOLDERS: usize = 16;

/// A posting, by action.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split<'a> {
    pub(crate) denies: &'a [u32],
    pub(crate) allows: &'a [u32],
    pub(crate) reports: &'a [u32],
}

/// Postings under construction.
#[derive(Default)]
struct Draft {
    anyone: Vec<(u64, u32)>,
    pairs: Vec<(u64, u32)>,
    challenges: Vec<(u64, u64, u32)>,
    kinds: Vec<(u64, u8)>,
}

impl RuleIndex {
    fn fill(&mut self) {
        let mut draft = Draft::default();
        let rules = std::mem::take(&mut self.rules);
        for (at, rule) in rules.iter().enumerate() {
            self.add(number(at), &rule.document, &mut draft);
        }
        self.rules = rules;
        self.places.reserve(draft.anyone.len().max(draft.kinds.len()) / 2);
        for (key, stretch) in self.lay_out(draft.anyone) {
            self.places.entry(key).or_default().anyone = stretch;
        }
        draft.challenges.sort_unstable();
        draft.challenges.dedup_by_key(|&mut (key, condition, _)| (key, condition));
        let challenges = draft.challenges.into_iter().map(|(key, _, number)| (key, number)).collect();
        for (key, stretch) in self.lay_out(challenges) {
            self.places.entry(key).or_default().challenges = stretch;
        }
        for (key, kinds) in draft.kinds {
            self.places.entry(key).or_default().kinds |= kinds;
        }
        self.pairs = self.lay_out(draft.pairs).into_iter().collect();
        self.postings.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    fn add(&mut self, number: u32, rule: &Rule, draft: &mut Draft) {
        let everything = [To::default()];
        let to = if rule.to.is_empty() { &everything[..] } else { &rule.to };
        let abouts: Vec<About<'_>> = to.iter().flat_map(abouts_of).collect();
        let whoms = whoms_of(&rule.from).filter(|whoms| whoms.len() * abouts.len() <= MAX_KEYS_PER_RULE);
        let condition = self.seed.hash_one((&rule.to, &rule.when));
        for about in abouts {
            match about {
                About::Host(_) => self.exact_hosts = true,
                About::Suffix(suffix) => self.depths.insert(suffix),
                About::Anything | About::Service(_) => {}
            }
            let key = self.seed.hash_one(about);
            match &whoms {
                None => draft.anyone.push((key, number)),
                Some(whoms) => {
                    draft.pairs.extend(whoms.iter().map(|whom| (self.seed.hash_one((key, *whom)), number)));
                    draft.kinds.push((key, whoms.iter().fold(0, |kinds, (kind, _)| kinds | *kind as u8)));
                }
            }
            if rule.action == Action::Allow && rule.from.iter().any(From::asks_who) {
                draft.challenges.push((key, condition, number));
            }
        }
    }

    /// Writes sorted postings and says where each key's are.
    fn lay_out(&mut self, mut entries: Vec<(u64, u32)>) -> Vec<(u64, Stretch)> {
        entries.sort_unstable();
        entries.dedup();
        let stretches = entries.chunk_by(|one, other| one.0 == other.0).map(|chunk| {
            let start = number(self.postings.len());
            self.postings.extend(chunk.iter().map(|&(_, number)| number));
            (chunk[0].0, Stretch { start, end: number(self.postings.len()) })
        });
        stretches.collect()
    }
}

fn number(at: usize) -> u32 {
    // Four thousand million rules do not fit in any memory this runs in.
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn abouts_of(to: &To) -> Vec<About<'_>> {
    if !to.services.is_empty() {
        return to.services.iter().map(|service| About::Service(service.as_str())).collect();
    }
    if to.hosts.is_empty() {
        return vec![About::Anything];
    }
    let abouts = to.hosts.iter().map(|pattern| match pattern {
        HostPattern::Exact(host) => About::Host(host),
        HostPattern::Suffix(suffix) => About::Suffix(suffix),
    });
    abouts.collect()
}

/// The caller keys of a rule; none where some entry says nothing that can be looked up.
fn whoms_of(from: &[From]) -> Option<Vec<Whom<'_>>> {
    if from.is_empty() {
        return None;
    }
    let mut whoms = Vec::new();
    for entry in from {
        let choices = [
            (Kind::Principal, &entry.principals),
            (Kind::ServiceAccount, &entry.service_accounts),
            (Kind::Namespace, &entry.namespaces),
        ];
        let keys = choices
            .into_iter()
            .filter(|(_, patterns)| !patterns.is_empty())
            .find_map(|(kind, patterns)| patterns.iter().map(|pattern| whom_of(kind, pattern)).collect::<Option<Vec<_>>>());
        whoms.extend(keys?);
    }
    Some(whoms)
}

fn whom_of(kind: Kind, pattern: &TextPattern) -> Option<Whom<'_>> {
    match (kind, pattern) {
        (kind, TextPattern::Exact(text)) => Some((kind, text)),
        (Kind::Principal, TextPattern::Prefix(start)) => {
            let folders = start.bytes().filter(|&byte| byte == b'/').count();
            let end = start.rfind('/').filter(|_| folders <= MAX_FOLDERS)?;
            Some((Kind::PrincipalFolder, &start[..=end]))
        }
        _ => None,
    }
}
