//! Whatever a body is made of: accepted and refused events are all of it, and lie in the log (R-3, R-8).

use proptest::prelude::*;
use reckon_data::ingest::{Compression, Ingest, Submission, SubmitError};

use super::model::*;

#[derive(Debug, Clone)]
enum Line {
    Good,
    Escaped,
    Blank,
    Bad(String),
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        5 => Just(Line::Good),
        1 => Just(Line::Escaped),
        1 => Just(Line::Blank),
        1 => "[ -~é]{1,30}".prop_filter("blank", |text| !text.trim().is_empty()).prop_map(Line::Bad),
        1 => (1..event("cut").len()).prop_map(|cut| Line::Bad(event("cut").chars().take(cut).collect())),
        1 => Just(Line::Bad(event("typed").replace("\"view\"", "[]"))),
    ]
}

fn written(lines: &[Line]) -> (String, Vec<String>, Vec<String>) {
    let (mut body, mut good, mut bad) = (String::new(), Vec::new(), Vec::new());
    for (n, line) in lines.iter().enumerate() {
        let text = match line {
            Line::Good => event(&format!("{n:03}")),
            Line::Escaped => event(&format!("{n:03}")).replace("\"view\"", r#""vi\u0065w""#),
            Line::Blank => " \r".to_owned(),
            Line::Bad(text) => text.clone(),
        };
        match line {
            Line::Good | Line::Escaped => good.push(format!("{n:03}")),
            Line::Bad(text) => bad.push(text.trim_ascii().to_owned()),
            Line::Blank => {}
        }
        body.push_str(&text);
        body.push('\n');
    }
    (body, good, sorted(bad))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn accepted_and_refused_are_all_and_lie_in_the_log(lines in prop::collection::vec(line(), 0..60), zipped in any::<bool>()) {
        let (body, good, bad) = written(&lines);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (log, answer) = runtime.block_on(async {
            let (log, gateway) = start();
            let submission = if zipped {
                let body = zstd::stream::encode_all(body.as_bytes(), 1).unwrap();
                Submission { compression: Compression::Zstd, ..ndjson(body) }
            } else {
                ndjson(body)
            };
            let answer = gateway.submit(submission).await;
            gateway.stop().await;
            (log, answer)
        });
        let receipt = match answer {
            Ok(receipt) => receipt,
            Err(SubmitError::Malformed { receipt, .. }) => {
                prop_assert!(good.is_empty());
                *receipt
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!((receipt.accepted, receipt.refused), (good.len() as u64, bad.len() as u64));
        prop_assert_eq!(sorted(log.at(&receipt)), good.clone());
        prop_assert_eq!(sorted(log.event_ids()), good);
        let letters = log.letters().into_iter().map(|letter| String::from_utf8(letter.body.unwrap()).unwrap());
        prop_assert_eq!(sorted(letters.collect()), bad);
    }
}
