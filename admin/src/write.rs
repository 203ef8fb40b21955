//! One write, start to end: precondition, check, compile, one transaction, publish, answer. Writes follow one another;
//! what is in force is replaced only after the commit.

use crate::{
    auth::Caller,
    clock,
    control::{Control, Current},
    noun::{Entry, Held, Noun},
    problem::Problem,
    store::{self, Change, Row, Who},
};
use axum::http::StatusCode;
use sqlx::{Connection, SqliteConnection};
use std::{collections::HashSet, sync::Arc};
use tidegate_policy::{Mistake, Name, Publication, Snapshot, plugin::Digest, publication::Module, route::FilterUse};
use tokio::sync::OwnedSemaphorePermit;

/// A write that was asked for.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) noun: Noun,
    pub(crate) name: Name,
    pub(crate) action: Action,
    pub(crate) precondition: Precondition,
    pub(crate) effect: Effect,
    pub(crate) caller: Caller,
    /// What the request's body takes of the memory for all of them, until the write has ended.
    #[expect(dead_code, reason = "counts as long as it is there")]
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Put(Entry),
    Delete,
}

/// Whether the change is made, or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Commit,
    DryRun,
}

/// What must hold of the entry (RFC 9110 section 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match` with entity tags
    Revisions(Vec<i64>),
}

/// What a write did.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) outcome: Outcome,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Created,
    Replaced,
    Unchanged,
    Deleted,
}

/// Makes the write. It runs to its end even when its caller goes away, so that what is in force never lags what is stored.
pub(crate) async fn write(control: Arc<Control>, write: Write) -> Result<Written, Problem> {
    let task = tokio::spawn(async move { attempt(&control, write).await });
    task.await.unwrap_or_else(|error| Err(Problem::internal("make this change", &error)))
}

async fn attempt(control: &Control, write: Write) -> Result<Written, Problem> {
    let mut writer = control.store.writer.acquire().await.map_err(stored)?;
    let written = in_transaction(control, &mut writer, write).await;
    if written.as_ref().is_err_and(Problem::is_own_failure) {
        // The engine ends a transaction by itself when the disk is full, and the connection then believes that it is
        // still within one. The next write opens another.
        writer.close_on_drop();
    }
    written
}

fn stored(error: sqlx::Error) -> Problem {
    Problem::database("store this change", &error)
}

async fn in_transaction(control: &Control, writer: &mut SqliteConnection, write: Write) -> Result<Written, Problem> {
    let (noun, name) = (write.noun, write.name.as_str());
    let current = control.current();
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(stored)?;
    let before = store::row(&mut transaction, noun, name).await.map_err(stored)?;
    write.precondition.check(before.as_ref())?;
    let mut held = current.held.clone();
    let prepared = match &write.action {
        Action::Put(entry) if before.is_some() && held.holds(&write.name, entry) => {
            if let (Entry::Plugin(_, module), Effect::Commit) = (entry, write.effect)
                && store::put_bytes(&mut transaction, module).await.map_err(stored)?
            {
                transaction.commit().await.map_err(stored)?;
                tracing::warn!(name, "the bytes of a module were missing from the database, or damaged, and are there again");
                control.publish_again();
            }
            return Ok(Written { outcome: Outcome::Unchanged, after: before.clone(), before });
        }
        Action::Put(entry) => {
            held.insert(write.name.clone(), entry.clone());
            Some(Prepared::of(control, name, entry)?)
        }
        Action::Delete if before.is_none() => return Err(absent(noun, name)),
        Action::Delete => {
            let referrers = store::referrers(&mut transaction, noun, name).await.map_err(stored)?;
            if !referrers.is_empty() {
                return Err(Problem::referred(&format!("{} {name}", noun.singular()), referrers));
            }
            held.remove(noun, &write.name);
            None
        }
    };
    let (mut held, snapshot) = compile(control, &current, held, noun, &write.name).await?;
    let who = Who { who: &write.caller.who, role: write.caller.role.as_str(), at_ms: clock::now_ms() };
    let (outcome, after, revision) = match (prepared, &before) {
        (Some(prepared), before) => {
            let change = prepared.change(noun, name, &write.action);
            let row = store::put(&mut transaction, &change, before.as_ref(), who).await.map_err(stored)?;
            let outcome = if before.is_some() { Outcome::Replaced } else { Outcome::Created };
            let revision = row.revision;
            (outcome, Some(row), revision)
        }
        (None, Some(row)) => (Outcome::Deleted, None, store::delete(&mut transaction, noun, row, who).await.map_err(stored)?),
        (None, None) => return Err(absent(noun, name)),
    };
    if write.effect == Effect::DryRun {
        transaction.rollback().await.map_err(stored)?;
        return Ok(Written { outcome, before, after });
    }
    transaction.commit().await.map_err(stored)?;
    if noun == Noun::Plugins {
        held.stored(&write.name, control.store.modules());
    }
    control.replace(Current::new(revision.unsigned_abs(), held, snapshot));
    control.metrics.writes.add(1);
    tracing::info!(who = who.who, collection = noun.as_str(), name, revision, outcome = ?outcome, "committed a change");
    Ok(Written { outcome, before, after })
}

/// A document made ready for the database.
struct Prepared {
    document: String,
    references: Vec<crate::noun::Reference>,
    sealed: Option<(&'static str, Vec<u8>)>,
}

impl Prepared {
    fn of(control: &Control, name: &str, entry: &Entry) -> Result<Self, Problem> {
        let document = entry.document().map_err(|error| Problem::internal("write this document", &error))?.to_string();
        let sealed = match entry {
            Entry::Credential(credential, facts) => {
                let kind = match facts.kind {
                    tidegate_policy::credential::CredentialKind::Certificate => "certificate",
                    tidegate_policy::credential::CredentialKind::Trust => "trust",
                    tidegate_policy::credential::CredentialKind::Secret => "secret",
                };
                let sealed = control.sealer.seal(kind, name, &crate::credential::material(credential));
                Some((kind, sealed.map_err(|error| Problem::internal("seal this credential", &error))?))
            }
            _ => None,
        };
        Ok(Self { document, references: entry.references(), sealed })
    }

    fn change<'a>(&'a self, noun: Noun, name: &'a str, action: &'a Action) -> Change<'a> {
        let module = match action {
            Action::Put(Entry::Plugin(_, module)) => Some(module),
            _ => None,
        };
        Change { noun, name, document: &self.document, references: &self.references, sealed: self.sealed.clone(), module }
    }
}

impl Precondition {
    fn check(&self, before: Option<&Row>) -> Result<(), Problem> {
        let holds = match (self, before) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::Revisions(revisions), Some(row)) => revisions.contains(&row.revision),
            (Self::Absent, Some(_)) | (Self::Present | Self::Revisions(_), None) => false,
        };
        if holds {
            return Ok(());
        }
        let now = before.map_or("it does not exist".to_owned(), |row| format!("its revision is {}", row.revision));
        let detail = format!("the entry is not in the state the request names: {now}; read it again and repeat the change");
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail))
    }
}

pub(crate) fn absent(noun: Noun, name: &str) -> Problem {
    let detail = format!("there is no {} named {name:?}; GET /v1/{} lists those that are", noun.singular(), noun.as_str());
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// Compiles what would be in force, and starts every filter whose module or configuration is new on a canary.
async fn compile(
    control: &Control,
    current: &Arc<Current>,
    held: Held,
    noun: Noun,
    name: &Name,
) -> Result<(Held, Snapshot), Problem> {
    let plane = Arc::clone(&control.plane);
    let current = Arc::clone(current);
    // Both may take long: at many rows, and with large modules.
    let work = tokio::task::spawn_blocking(move || {
        let compiled = Snapshot::compile_after(&held.rows, Some(&current.publication.snapshot));
        let known: HashSet<_> = uses(&current.held).into_iter().map(|filter| (filter.module.digest, filter.start)).collect();
        let refused: Vec<Mistake> = uses(&held)
            .into_iter()
            .filter(|filter| !known.contains(&(filter.module.digest, filter.start.clone())))
            .filter_map(|filter| {
                plane.configure(filter.module, filter.used).err().map(|detail| Mistake::at(filter.pointer, detail))
            })
            .collect();
        match compiled {
            Ok(snapshot) if refused.is_empty() => Ok((held, snapshot)),
            Ok(_) => Err(refused),
            Err(mistakes) => Err(mistakes.into_iter().chain(refused).collect()),
        }
    });
    let compiled: Result<_, Vec<Mistake>> = work.await.map_err(|error| Problem::internal("compile this change", &error))?;
    compiled.map_err(|mistakes| Problem::mistakes(mistakes.into_iter().map(|mistake| seen_from(noun, name, mistake)).collect()))
}

/// The mistake as the author of the written document sees it: within it, or elsewhere because of it.
fn seen_from(noun: Noun, name: &Name, mistake: Mistake) -> Mistake {
    let prefix = format!("/{}/{name}", noun.as_str());
    match mistake.pointer.strip_prefix(&prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Mistake::at(rest, mistake.detail),
        _ => Mistake::at("", format!("because of this change, {mistake}")),
    }
}

/// One filter on one route.
struct Use<'a> {
    pointer: String,
    module: &'a Module,
    used: &'a FilterUse,
    /// What decides whether it starts.
    start: String,
}

fn uses(held: &Held) -> Vec<Use<'_>> {
    let mut uses = Vec::new();
    let mut seen: HashSet<(Digest, String)> = HashSet::new();
    for (name, route) in &held.rows.routes {
        for (index, filter) in route.filters.iter().enumerate() {
            let Some(module) = held.modules.get(&filter.plugin) else { continue };
            let start = filter.start();
            if seen.insert((module.digest, start.clone())) {
                let pointer = format!("/routes/{name}/filters/{index}/config");
                uses.push(Use { pointer, module, used: filter, start });
            }
        }
    }
    uses
}

impl Current {
    /// What is in force after `revision`.
    pub(crate) fn new(revision: u64, held: Held, snapshot: Snapshot) -> Self {
        let publication = Publication {
            revision,
            snapshot: Arc::new(snapshot),
            credentials: held.credentials.clone(),
            modules: held.modules.clone(),
        };
        Self { held, publication: Arc::new(publication) }
    }
}
