//! Folding runs into one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::entities::Entities;
use super::offsets::Offsets;
use super::rows::Rows;
use super::{DimValues, Run, unite};

/// A run being folded: how far it is, and what its dictionaries' numbers are in the result.
struct Input<'a> {
    run: &'a Run,
    at: usize,
    types: Vec<u32>,
    dims: Vec<u32>,
}

impl<'a> Input<'a> {
    fn hash(&self) -> Option<u64> {
        (self.at < self.run.entities.len()).then(|| self.run.entities.hash(self.at))
    }

    fn id(&self) -> &'a str {
        self.run.entities.id(self.at)
    }
}

/// The result as far as it is.
struct Output {
    entities: Entities,
    row_ends: Offsets,
    rows: Rows,
    has_dims: bool,
    /// (key, input, row) of the rows of an entity that many runs have.
    keyed: Vec<(u128, usize, usize)>,
}

impl Output {
    /// Takes the current entity of `group`, the same in all of them.
    fn take(&mut self, inputs: &mut [Input<'_>], group: &[usize]) {
        let first = &inputs[group[0]];
        self.entities.push(first.run.entities.hash(first.at), first.id());
        if let [only] = group {
            let input = &inputs[*only];
            let rows = input.run.row_ends.range(input.at);
            self.rows.extend(&input.run.rows, rows, &input.types, &input.dims, self.has_dims);
        } else {
            self.add_up(inputs, group);
        }
        self.row_ends.push(self.rows.len());
        group.iter().for_each(|at| inputs[*at].at += 1);
    }

    fn add_up(&mut self, inputs: &[Input<'_>], group: &[usize]) {
        self.keyed.clear();
        for at in group {
            let input = &inputs[*at];
            let rows = &input.run.rows;
            self.keyed.extend(input.run.row_ends.range(input.at).map(|row| {
                let type_id = input.types[rows.type_ids[row] as usize];
                let dim_id = input.dims[rows.dim_id(row) as usize];
                (super::rows::pack(type_id, rows.minutes[row], dim_id), *at, row)
            }));
        }
        // Dictionaries keep their order when united, so the rows of each run ascend already: a stable sort
        // only merges them.
        self.keyed.sort_by_key(|(key, ..)| *key);
        let mut last = None;
        for (key, at, row) in &self.keyed {
            let counted = inputs[*at].run.rows.counted(*row);
            if last.replace(*key) == Some(*key) {
                self.rows.merge_last(counted);
            } else {
                self.rows.push(*key, self.has_dims, counted);
            }
        }
    }
}

impl Run {
    /// All of `runs` added up, in time linear in their rows.
    #[must_use]
    pub fn merge(runs: &[Arc<Self>]) -> Self {
        let runs: Vec<&Self> = runs.iter().map(AsRef::as_ref).filter(|run| !run.is_empty()).collect();
        match runs.as_slice() {
            [] => return Self::default(),
            [only] => return (*only).clone(),
            _ => {}
        }
        let (types, type_maps) = unite(&runs.iter().map(|run| run.types.as_slice()).collect::<Vec<_>>(), |_, _| true);
        let (dims, dim_maps): (Vec<DimValues>, _) =
            unite(&runs.iter().map(|run| run.dims.as_slice()).collect::<Vec<_>>(), |_, _| true);
        let mut inputs: Vec<Input<'_>> = runs
            .iter()
            .zip(type_maps.into_iter().zip(dim_maps))
            .map(|(run, (types, dims))| Input { run, at: 0, types, dims })
            .collect();
        let mut output = Output::for_inputs(&inputs, dims.len() > 1);
        fold(&mut inputs, &mut output);
        let Output { entities, mut row_ends, mut rows, .. } = output;
        rows.shrink();
        row_ends.shrink();
        Self::assemble(entities, row_ends, types, dims, rows)
    }
}

impl Output {
    fn for_inputs(inputs: &[Input<'_>], has_dims: bool) -> Self {
        // Entities that many runs have are counted once for each: too much, but never by more than what the
        // runs themselves take.
        let entities = inputs.iter().map(|input| input.run.entities.len()).sum();
        let text = inputs.iter().map(|input| input.run.entities.text_bytes()).sum();
        Self {
            entities: Entities::with_capacity(entities, text),
            row_ends: Offsets::with_capacity(entities),
            rows: Rows::with_capacity(inputs.iter().map(|input| input.run.rows()).sum(), has_dims),
            has_dims,
            keyed: Vec::new(),
        }
    }
}

fn fold(inputs: &mut [Input<'_>], output: &mut Output) {
    let mut heads: BinaryHeap<Reverse<(u64, usize)>> =
        inputs.iter().enumerate().filter_map(|(at, input)| Some(Reverse((input.hash()?, at)))).collect();
    let mut group: Vec<usize> = Vec::with_capacity(inputs.len());
    while let Some(Reverse((hash, first))) = heads.pop() {
        group.clear();
        group.push(first);
        while let Some(Reverse((next, at))) = heads.peek().copied() {
            if next != hash {
                break;
            }
            heads.pop();
            group.push(at);
        }
        if group.len() > 1 {
            // Equal hashes are equal entities all but always; the others wait for their turn.
            let least = group.iter().map(|at| inputs[*at].id()).min().unwrap_or_default();
            group.retain(|at| {
                let now = inputs[*at].id() == least;
                if !now {
                    heads.push(Reverse((hash, *at)));
                }
                now
            });
        }
        output.take(inputs, &group);
        heads.extend(group.iter().filter_map(|at| Some(Reverse((inputs[*at].hash()?, *at)))));
    }
}
