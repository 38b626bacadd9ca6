//! Answers that are wrong, and older reports that were changed.

use std::sync::Arc;

use arrow::array::AsArray as _;
use async_trait::async_trait;
use reckon_audit::finding::Class;
use reckon_audit::ledger::{Answer, Answers, Question};
use reckon_audit::store::AuditStore;
use reckon_data::table::Table;

use super::super::Served;
use super::super::damage::with_text;
use super::super::look::whole;
use super::super::world::{ONCE, World, in_time};
use super::{errors, hold_all};

/// Answers one too many for an entity, in the batch part or in the rest.
#[derive(Debug)]
struct OneMore {
    served: Served,
    in_batch: bool,
}

#[async_trait]
impl Answers for OneMore {
    async fn count(&self, question: &Question) -> Result<Answer, String> {
        let mut answer = self.served.count(question).await?;
        if question.entity_id == ONCE {
            answer.count += 1;
            answer.batch += u64::from(self.in_batch);
        }
        Ok(answer)
    }
}

#[test]
fn an_answer_that_is_one_too_many_differs() {
    in_time(async {
        let world = World::plain(5).await;
        for in_batch in [true, false] {
            let served = Served(Arc::clone(&world.node.serving));
            let report = world.audit_answers(true, Arc::new(OneMore { served, in_batch })).await;
            hold_all(&report, Class::ServedDiffers, "served");
            for finding in errors(&report) {
                assert_eq!(finding.entity_id.as_deref(), Some(ONCE), "{finding:#?}");
                assert_eq!(finding.found, finding.expected.map(|expected| expected + 1), "{finding:#?}");
            }
        }
    });
}

#[test]
fn an_older_report_that_was_changed_is_found() {
    in_time(async {
        let mut world = World::plain(6).await;
        let auditor = world.auditor();
        let store = AuditStore {
            tables: Arc::clone(&auditor.tables),
            store: Arc::new(auditor.files.clone()),
            names: Arc::clone(&world.durable.names),
        };
        for _ in 0..2 {
            store.append(world.audit(true).await).await.unwrap();
        }
        assert_eq!(store.verify().await.unwrap(), Vec::new());
        let runs = auditor.tables.snapshot(Table::AuditRuns).await.unwrap();
        let older = runs.files.iter().min_by_key(|file| file.path.clone()).unwrap().clone();
        let rows = whole(&auditor, Table::AuditRuns, &older).await;
        let text = rows["report"].as_string::<i32>().value(0).replace("simulation", "imagination");
        world.change(Table::AuditRuns, &older, Box::new(|rows| with_text(rows, "report", 0, Some(&text)))).await;
        let found = store.verify().await.unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|finding| finding.class == Class::ReportChanged), "{found:#?}");
    });
}
