//! The read model: in how many commits each word is in the subject.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Batch, BoxError, Error, ErrorKind, Projection, RecordedEvent, Result, Tx};
use serde::Deserialize;

pub(crate) struct Words;

#[derive(Deserialize)]
struct Commit {
    subject: String,
}

impl Projection for Words {
    fn name(&self) -> &str {
        "words"
    }

    fn up(&self) -> &str {
        "create table words (word text primary key, commits bigint not null)"
    }

    fn events(&self) -> Option<Vec<String>> {
        Some(vec!["CommitRecorded".to_owned()])
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for event in &batch.events {
            for word in words(&commit(event)?.subject) {
                *counts.entry(word).or_default() += 1;
            }
        }
        let (words, commits): (Vec<String>, Vec<i64>) = counts.into_iter().unzip();
        tx.execute(
            "insert into words (word, commits) select * from unnest($1, $2)
             on conflict (word) do update set commits = words.commits + excluded.commits",
            &[&words, &commits],
        )
        .await?;
        Ok(())
    }
}

/// The engine narrows this error down to the event that causes it, then stops there or parks its key.
fn commit(event: &RecordedEvent) -> Result<Commit> {
    serde_json::from_str(event.data.get()).map_err(|error| {
        let what = format!("the data is not that of a commit: {error}");
        Error::new(ErrorKind::Undigestible, what).with_source(error)
    })
}

fn words(subject: &str) -> BTreeSet<String> {
    let words = subject.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}
