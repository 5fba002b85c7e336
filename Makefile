# make demo   builds and shows examples/debian
# make test   runs the tests
# make static builds a program that needs no library, target/static/mkosi
# make test-boot  runs those that boot virtual machines for minutes
# make fuzz   runs each fuzz target for FUZZ_SECONDS
# All install what the host lacks, on Debian 12 and 13, as root or through sudo.

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# gcc and libc6-dev: two crates build C code. uidmap and acl: the tests' ordinary user. The rest are the programs
# that stages run on the host.
PACKAGES := acl apt-utils attr ca-certificates cpio debian-archive-keyring dpkg gcc gpg gpg-agent gpgv kmod libc6-dev \
	libarchive-tools openssl passwd python3 systemd tar udev uidmap util-linux xz-utils zstd
# Only the tests: they read the manual and the completions, run images, and open OCI images.
TEST_PACKAGES := bash busybox-static checkpolicy e2fsprogs fdisk fish groff-base mount ovmf qemu-system-x86 skopeo sqop \
	swtpm swtpm-tools systemd-container systemd-journal-remote umoci zsh
EXAMPLE := examples/debian
MKOSI := $(CURDIR)/target/release/mkosi

.PHONY: demo static test test-boot lint bench fuzz setup

FUZZ_TARGETS := file condition specifiers project
FUZZ_SECONDS ?= 30

setup:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		$(SUDO) apt-get update -qq; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

demo: setup
	cargo build --release --quiet
	@printf '\n%s\n' '$$ mkosi -C $(EXAMPLE)'
	@$(SUDO) $(MKOSI) -C $(EXAMPLE)
	@printf '\n%s\n' '$$ mkosi -C $(EXAMPLE) graph'
	@$(SUDO) $(MKOSI) -C $(EXAMPLE) graph
	@printf '\n%s\n' '$$ mkosi -C $(EXAMPLE)    # again: nothing runs'
	@$(SUDO) $(MKOSI) -C $(EXAMPLE)
	@printf '\n%s\n' '$$ mkosi -C $(EXAMPLE) --format tar --compress-output zstd'
	@$(SUDO) $(MKOSI) -C $(EXAMPLE) --format tar --compress-output zstd
	@ls -l $(EXAMPLE)/mkosi.output

# The C library is linked in for the program alone; what it is made of is shared with `cargo build --release`.
static: setup
	cargo rustc --release --quiet --bin mkosi -- -C target-feature=+crt-static
	@mkdir -p target/static
	@cp target/release/mkosi target/static/mkosi

test: PACKAGES += $(TEST_PACKAGES)
test: setup
	cargo test --quiet

test-boot: PACKAGES += $(TEST_PACKAGES)
test-boot: setup
	cargo test --quiet -- --ignored boot_

lint:
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings

bench: setup
	cargo bench --quiet

# What `cargo fuzz` passes, but for the sanitizer: works with stable Rust.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# A target is named, so that build scripts are built without the flags. New inputs go to fuzz/target, not to the corpus.
fuzz: PACKAGES += g++
fuzz: setup
	@cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --quiet --locked --target-dir target --target $(FUZZ_HOST)
	@cd fuzz && for t in $(FUZZ_TARGETS); do \
		echo "fuzzing $$t"; mkdir -p target/found/$$t; \
		target/$(FUZZ_HOST)/debug/$$t -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=60 -verbosity=0 \
			-artifact_prefix=target/found/$$t- target/found/$$t corpus/$$t || exit 1; \
	done
