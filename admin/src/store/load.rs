//! Everything stored, read at start.

use super::{Row, Store, check};
use crate::{
    StartError,
    noun::{Entry, Held, Noun},
    seal::Sealer,
};
use std::sync::Arc;
use tidegate_policy::{
    Name,
    credential::Credential,
    plugin::Digest,
    publication::{Content, Module},
};

impl Store {
    /// The number of the last revision; 0 before the first.
    pub(crate) async fn revision(&self) -> Result<u64, StartError> {
        let sql = "SELECT COALESCE(MAX(number), 0) FROM revision";
        let number: i64 = sqlx::query_scalar(sql).fetch_one(&self.readers).await.map_err(|error| self.refused(&error))?;
        Ok(number.unsigned_abs())
    }

    /// Stores the seal check, once.
    pub(crate) async fn put_seal_check(&self, sealed: &[u8]) -> Result<(), StartError> {
        let insert = sqlx::query("INSERT INTO seal_check (only, sealed) VALUES (1, ?)").bind(sealed.to_vec());
        let done = insert.execute(&self.writer).await;
        done.map(drop).map_err(|error| self.refused(&error))
    }

    /// Everything registered.
    pub(crate) async fn load(&self, sealer: &Sealer) -> Result<Held, StartError> {
        let mut held = Held::default();
        let mut mistakes = Vec::new();
        for noun in Noun::ALL {
            for row in self.list(noun, "", i64::MAX).await.map_err(|error| self.refused(&error))? {
                match self.entry(noun, &row, sealer).await? {
                    Ok((name, entry)) => held.insert(name, entry),
                    Err(found) => {
                        mistakes.extend(found.into_iter().map(|detail| format!("/{}/{}{detail}", noun.as_str(), row.name)));
                    }
                }
            }
        }
        if mistakes.is_empty() { Ok(held) } else { Err(StartError::Stored { path: self.path.clone(), mistakes }) }
    }

    async fn entry(&self, noun: Noun, row: &Row, sealer: &Sealer) -> Result<Result<(Name, Entry), Vec<String>>, StartError> {
        let Ok(name) = row.name.parse::<Name>() else { return Ok(Err(vec![": the name is not one".to_owned()])) };
        let entry = match noun {
            Noun::Credentials => self.credential(row, sealer).await?,
            Noun::Plugins => self.plugin(row).await?,
            _ => noun.read(row.document.as_bytes()).map_err(|found| found.iter().map(ToString::to_string).collect()),
        };
        Ok(entry.map(|entry| (name, entry)))
    }

    async fn credential(&self, row: &Row, sealer: &Sealer) -> Result<Result<Entry, Vec<String>>, StartError> {
        let sql = "SELECT kind, sealed FROM credential_material WHERE name = ?";
        let found: Option<(String, Vec<u8>)> =
            sqlx::query_as(sql).bind(&row.name).fetch_optional(&self.readers).await.map_err(|error| self.refused(&error))?;
        let opened = found.and_then(|(kind, sealed)| sealer.open(&kind, &row.name, &sealed).ok());
        let read = opened
            .and_then(|text| serde_json::from_slice::<Credential>(&text).ok())
            .zip(serde_json::from_str(&row.document).ok());
        Ok(match read {
            Some((credential, facts)) => Ok(Entry::Credential(Arc::new(credential), facts)),
            None => Err(vec![": its sealed material cannot be opened".to_owned()]),
        })
    }

    async fn plugin(&self, row: &Row) -> Result<Result<Entry, Vec<String>>, StartError> {
        let sql = "SELECT digest FROM plugin_module JOIN module USING (digest) WHERE name = ?";
        let found: Option<String> = sqlx::query_scalar(sql)
            .bind(&row.name)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| self.refused(&error))?;
        let digest = found.and_then(|digest| digest.parse::<Digest>().ok());
        let module = digest.map(|digest| Module { digest, content: Content::Stored(self.modules()) });
        Ok(match module.zip(serde_json::from_str(&row.document).ok()) {
            Some((module, plugin)) => Ok(Entry::Plugin(Arc::new(plugin), module)),
            None => Err(vec![": its module cannot be read".to_owned()]),
        })
    }

    fn refused(&self, error: &sqlx::Error) -> StartError {
        check::refused(&self.path, error)
    }
}
