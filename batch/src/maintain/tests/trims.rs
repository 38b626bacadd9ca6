//! How far the log goes.

use reckon_data::log::Log;
use reckon_data::log::memory::MemoryLog;
use reckon_data::record::encode_cut;

use super::*;

async fn log(times: &[i64]) -> MemoryLog {
    let log = MemoryLog::new(1, &SeededNames::new(1));
    for time in times {
        log.append(0, vec![encode_cut(LOG, 0, *time)]).await.unwrap();
    }
    log
}

proptest! {
    /// nothing that somebody needs is trimmed, and the point stays within the log.
    #[test]
    fn the_trim_point_is_below_both(refill_offset in 0..20_u64, archived in 0..20_u64, start in 0..20_u64, length in 0..20_u64) {
        let point = trim_point(Safe { refill_offset, archived }, start, start + length);
        prop_assert!(start <= point && point <= start + length);
        prop_assert!(point == start || (point <= refill_offset && point <= archived));
    }
}

#[tokio::test]
async fn the_log_is_trimmed_as_far_as_it_is_safe_and_old() {
    let log = log(&[10, 20, 30, 40, 50]).await;
    let clock = ManualClock::at(45);
    let safe = [Safe { refill_offset: 4, archived: 5 }];
    let keep = Duration::from_micros(20);
    assert_eq!(trim_log(&log, &safe, keep, &clock).await.unwrap(), [2], "what is as old as 25 goes");
    assert_eq!(log.extent(0).await.unwrap(), 2..5);
    assert_eq!(trim_log(&log, &safe, Duration::ZERO, &clock).await.unwrap(), [4]);
    assert_eq!(trim_log(&log, &[Safe { refill_offset: 0, archived: 9 }], Duration::ZERO, &clock).await.unwrap(), [4]);
    clock.advance(1_000);
    assert_eq!(trim_log(&log, &[Safe { refill_offset: 9, archived: 9 }], keep, &clock).await.unwrap(), [5]);
    assert!(clock.now() > 0);
}
