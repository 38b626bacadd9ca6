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
