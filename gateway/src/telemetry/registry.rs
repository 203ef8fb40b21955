//! Everything that is counted, read as one page. Modules keep their numbers; this knows how to ask for them.

use super::page::Page;
use std::sync::{Arc, Mutex, PoisonError};

type Source = Box<dyn Fn(&mut Page) + Send + Sync>;

/// The sources of the metrics page. Cloning shares them.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl Registry {
    /// Adds a source, asked on every scrape. It must not block.
    pub fn add(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Reads every source.
    pub fn read(&self) -> Page {
        let mut page = Page::default();
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut page);
        }
        page
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
