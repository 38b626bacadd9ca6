//! The laws of metrics and their answers.

use proptest::prelude::*;

use super::*;
use crate::decimal::VALUE_LIMIT;

fn event() -> impl Strategy<Value = Cell> {
    let value = prop::option::of(1 - VALUE_LIMIT..VALUE_LIMIT);
    (any::<u64>(), value, prop::option::of(0..600_u32), any::<bool>()).prop_map(|(hash, value, user, late)| {
        let cell = Cell::one(hash, value, user.map(|u| u.to_string()).as_deref());
        if late { cell.as_late() } else { cell }
    })
}

fn cell() -> impl Strategy<Value = Cell> {
    let few = prop::collection::vec(event(), 0..12);
    let many = prop::collection::vec(event(), 500..900);
    prop_oneof![9 => few, 1 => many].prop_map(|events| merged(&events))
}

fn merged<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Cell {
    cells.into_iter().fold(Cell::default(), |mut sum, cell| {
        sum.merge(cell);
        sum
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merge_is_associative(a in cell(), b in cell(), c in cell()) {
        let left = merged([&merged([&a, &b]), &c]);
        let right = merged([&a, &merged([&b, &c])]);
        prop_assert_eq!(left, right);
    }

    #[test]
    fn merge_is_commutative(a in cell(), b in cell()) {
        prop_assert_eq!(merged([&a, &b]), merged([&b, &a]));
    }

    #[test]
    fn merge_has_an_identity(a in cell()) {
        prop_assert_eq!(&merged([&a, &Cell::default()]), &a);
        prop_assert_eq!(&merged([&Cell::default(), &a]), &a);
    }

    #[test]
    fn what_was_counted_is_plausible(a in cell()) {
        prop_assert!(a.value.is_none_or(|value| value.is_plausible()) && a.late <= a.count);
    }
}

#[test]
fn an_overflow_stays_one() {
    let mut cell = Cell::counted(u64::MAX - 1, 0, 0);
    assert_eq!(cell.evaluate(Function::Count), Answer::Count(u64::MAX - 1));
    cell.merge(&Cell::counted(5, 0, 0));
    cell.merge(&Cell::default());
    for function in Function::ALL {
        assert_eq!(cell.evaluate(function), Answer::Overflow);
    }
}

#[test]
fn functions_of_a_cell() {
    let cell = merged(&[
        Cell::one(7, Some(1_500_000), Some("a")),
        Cell::one(8, Some(-2), Some("b")),
        Cell::one(9, None, None).as_late(),
    ]);
    let json = |function: &str| cell.evaluate(function.parse().unwrap()).to_json().to_string();
    assert_eq!(json("count"), "3");
    assert_eq!(json("sum"), "\"1.499998\"");
    assert_eq!(json("min"), "\"-0.000002\"");
    assert_eq!(json("max"), "\"1.5\"");
    assert_eq!(json("avg"), "\"0.749999\"");
    assert_eq!(json("approx_distinct"), "2");
    assert_eq!((cell.fingerprint, cell.late), (24, 1));
}

#[test]
fn functions_of_nothing() {
    let nothing = Cell::default();
    assert_eq!(nothing.evaluate(Function::Count), Answer::Count(0));
    for function in &Function::ALL[1..] {
        assert_eq!(nothing.evaluate(*function), Answer::Null);
    }
}

#[test]
fn names_are_read_back() {
    for function in Function::ALL {
        assert_eq!(function.to_string().parse(), Ok(function));
        assert_eq!(serde_json::to_value(function).unwrap(), function.name());
    }
    assert!("median".parse::<Function>().is_err());
}
