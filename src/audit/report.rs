//! An audit as text and as JSON.

use serde_json::{Value, json};

use super::{Audit, AuditedLog, Change, ReadModel};

impl Audit {
    /// As text: a line for each log and each read model, and one for each change.
    pub fn render(&self) -> String {
        let logs = self.logs.iter().map(AuditedLog::render);
        logs.chain(self.read_models.iter().map(ReadModel::render))
            .collect()
    }

    /// As `--json` prints it.
    pub fn to_json(&self) -> Value {
        let logs: Vec<Value> = self.logs.iter().map(AuditedLog::to_json).collect();
        let read_models: Vec<Value> = self.read_models.iter().map(ReadModel::to_json).collect();
        json!({ "agrees": self.agrees(), "sources": logs, "projections": read_models })
    }
}

impl AuditedLog {
    fn render(&self) -> String {
        let source = &self.source;
        let mut text = format!(
            "source {source}: {} events in {} blocks are unchanged",
            self.events, self.blocks
        );
        if self.counted_later > 0 {
            text += &format!(
                "; {} of these blocks were first counted after they had been read",
                self.counted_later
            );
        }
        if self.trimmed > 0 {
            text += &format!(
                "; {} blocks cannot be compared, because their oldest events were removed",
                self.trimmed
            );
        }
        text.push('\n');
        for change in &self.changes {
            text += &format!("source {source}: {}\n", change.render());
        }
        if self.removals_unknown && !self.changes.is_empty() {
            text += &format!(
                "source {source}: does not record removals, so removed events count as changes too\n"
            );
        }
        if self.is_read_only {
            text += &format!("source {source}: read-only role: results were not stored\n");
        }
        text
    }

    fn to_json(&self) -> Value {
        let changes: Vec<Value> = self.changes.iter().map(Change::to_json).collect();
        json!({
            "source": self.source,
            "blocks": self.blocks,
            "events": self.events,
            "counted_later": self.counted_later,
            "trimmed": self.trimmed,
            "removals_unknown": self.removals_unknown,
            "changes": changes,
            "read_only": self.is_read_only,
        })
    }
}

impl ReadModel {
    fn render(&self) -> String {
        let name = &self.projection;
        let verdict = match (self.is_other_log, self.concerned_by.as_slice()) {
            (true, _) => format!(
                "its source is not the log that it was built from; connect to the database it \
                 was built from, or highwater rebuild {name}"
            ),
            (false, []) => format!(
                "no event that it has read has changed, up to {}",
                self.position
            ),
            (false, changes) => {
                let changes: Vec<String> = changes.iter().map(Change::render).collect();
                format!(
                    "may be wrong: {}; highwater rebuild {name} builds it again from the events \
                     that are there",
                    changes.join("; ")
                )
            }
        };
        format!("{name}: {verdict}\n")
    }

    fn to_json(&self) -> Value {
        let changes: Vec<Value> = self.concerned_by.iter().map(Change::to_json).collect();
        json!({
            "name": self.projection.as_str(),
            "generation": self.generation,
            "position": self.position,
            "other_log": self.is_other_log,
            "changes": changes,
        })
    }
}

impl Change {
    fn render(&self) -> String {
        let (before, now) = (self.events_before, self.events_now);
        let what = match now.cmp(&before) {
            std::cmp::Ordering::Greater => {
                format!("{} appeared after it had been passed", events(now - before))
            }
            std::cmp::Ordering::Less => format!(
                "{} vanished and were not removed on purpose",
                events(before - now)
            ),
            std::cmp::Ordering::Equal => "some events were replaced by others".to_owned(),
        };
        format!(
            "positions {}: {before} events were there, now {now}: {what}",
            self.range
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "after": self.range.after(),
            "through": self.range.through(),
            "events_before": self.events_before,
            "events_now": self.events_now,
            "found_at": self.found_at.to_string(),
        })
    }
}

fn events(count: u64) -> String {
    match count {
        1 => "1 event".to_owned(),
        _ => format!("{count} events"),
    }
}
