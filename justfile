# One command each for what is done often.

# Format, clippy with warnings fatal, all tests, doc tests, other readers: what CI runs.
check:
    sh scripts/check

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --release --workspace --all-targets -- -D warnings

test:
    cargo nextest run --release --workspace

doc:
    cargo test --release --workspace --doc

# Licences and advisories; needs the advisory database.
deny:
    cargo deny check

target := env("CARGO_TARGET_DIR", "target") / "release"

# So many seeds of all layers under faults, in virtual time, held to an oracle.
simulate seeds="100":
    cargo build --release --workspace --bins
    {{target}}/simulate {{seeds}}

# So many kill -9 of the real binary under load, compared with a ledger of what it has acknowledged.
torture kills="20":
    cargo build --release --workspace --bins
    {{target}}/torture {{kills}}
