//! The order of rows by (entity, type, minute, dimensions), found by comparing numbers.
//!
//! Most rows share their texts with others, so each text is compared once: the distinct ones are sorted,
//! every row gets their ranks, and the ranks side by side are one number that sorts as the row does.

use arrow::array::{Array, Int32Array, StringViewArray};
use hashbrown::HashMap;

/// The ranks of a column's values, nulls first, and how many bits a rank takes.
struct Ranks {
    of_row: Vec<u32>,
    bits: u32,
}

/// The order in which rows with these columns are sorted. None when they cannot be told apart in 128 bits, which
/// takes more rows than a chunk has.
#[must_use]
pub fn order(
    texts: &[&StringViewArray; 2],
    minutes: &Int32Array,
    dims: &[Option<StringViewArray>; 3],
) -> Option<Vec<u32>> {
    let rows = minutes.len();
    let mut columns: Vec<Ranks> = texts.iter().map(|column| rank_texts(column)).collect();
    columns.push(rank_minutes(minutes));
    columns.extend(dims.iter().flatten().map(rank_texts));
    let row_bits = bits_for(rows);
    let bits: u32 = columns.iter().map(|column| column.bits).sum::<u32>() + row_bits;
    match bits {
        0..=64 => Some(by_number(rows, |row| pack(&columns, row) as u64, row_bits)),
        65..=128 => {
            let mut keys: Vec<u128> = (0..rows).map(|row| (pack(&columns, row) << row_bits) | row as u128).collect();
            keys.sort_unstable();
            let mask = (1_u128 << row_bits) - 1;
            Some(keys.into_iter().map(|key| (key & mask) as u32).collect())
        }
        _ => None,
    }
}

fn by_number(rows: usize, key: impl Fn(usize) -> u64, row_bits: u32) -> Vec<u32> {
    let mut keys: Vec<u64> = (0..rows).map(|row| (key(row) << row_bits) | row as u64).collect();
    keys.sort_unstable();
    let mask = (1_u64 << row_bits) - 1;
    keys.into_iter().map(|key| (key & mask) as u32).collect()
}

fn pack(columns: &[Ranks], row: usize) -> u128 {
    columns.iter().fold(0, |key, column| (key << column.bits) | u128::from(column.of_row[row]))
}

fn rank_texts(column: &StringViewArray) -> Ranks {
    let mut numbers: HashMap<Option<&str>, u32> = HashMap::new();
    let mut distinct: Vec<Option<&str>> = Vec::new();
    let mut of_row: Vec<u32> = Vec::with_capacity(column.len());
    for value in column {
        let number = *numbers.entry(value).or_insert_with(|| {
            distinct.push(value);
            // There are fewer distinct values than rows, and rows are numbered by u32.
            (distinct.len() - 1) as u32
        });
        of_row.push(number);
    }
    drop(numbers);
    let mut sorted: Vec<u32> = (0..distinct.len() as u32).collect();
    sorted.sort_unstable_by_key(|number| distinct[*number as usize]);
    let mut ranks = vec![0_u32; distinct.len()];
    for (rank, number) in sorted.into_iter().enumerate() {
        ranks[number as usize] = rank as u32;
    }
    of_row.iter_mut().for_each(|number| *number = ranks[*number as usize]);
    Ranks { of_row, bits: bits_for(distinct.len()) }
}

fn rank_minutes(minutes: &Int32Array) -> Ranks {
    let first = minutes.values().iter().min().copied().unwrap_or_default();
    // As unsigned numbers the differences fit, whatever the minutes are.
    let of_row: Vec<u32> = minutes.values().iter().map(|minute| minute.wrapping_sub(first).cast_unsigned()).collect();
    let last = of_row.iter().max().copied().unwrap_or_default();
    Ranks { bits: u32::BITS - last.leading_zeros(), of_row }
}

/// Bits of a number below `count`.
fn bits_for(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::engine::CHUNK_ROWS;
    use super::*;

    #[test]
    fn the_largest_chunk_can_be_sorted_whatever_is_in_it() {
        let rows = *CHUNK_ROWS.end();
        // Odd multipliers: every column has another value in every row, in another order.
        let texts = |odd: usize| (0..rows).map(|n| Some(format!("{}", n * odd % rows))).collect::<StringViewArray>();
        let (entity, kind) = (texts(7), texts(11));
        let minutes: Int32Array = (0..rows).map(|n| 20_000_000 + (n % 1_440) as i32).collect();
        let dims = [Some(texts(13)), Some(texts(17)), Some(texts(19))];
        let order = order(&[&entity, &kind], &minutes, &dims).unwrap();
        assert_eq!(order.len(), rows);
        assert!(order.windows(2).all(|pair| entity.value(pair[0] as usize) < entity.value(pair[1] as usize)));
    }

    type Row = (String, String, i32, Option<String>, Option<String>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let text = || "[ab]{0,3}|[a-z]{14,20}";
        let minute = prop_oneof![-3..3_i32, any::<i32>()];
        prop::collection::vec((text(), text(), minute, prop::option::of(text()), prop::option::of(text())), 0..80)
    }

    proptest! {
        #[test]
        fn rows_come_in_the_order_of_their_columns(rows in rows()) {
            let texts = |of: fn(&Row) -> Option<&str>| rows.iter().map(of).collect::<StringViewArray>();
            let (entity, kind) = (texts(|row| Some(&row.0)), texts(|row| Some(&row.1)));
            let minutes: Int32Array = rows.iter().map(|row| row.2).collect();
            let dims = [Some(texts(|row| row.3.as_deref())), None, Some(texts(|row| row.4.as_deref()))];
            let order = order(&[&entity, &kind], &minutes, &dims).unwrap();
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by_key(|row| &rows[*row as usize]);
            prop_assert_eq!(order, expected);
        }
    }
}
