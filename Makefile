# The project's own commands. What they need is installed from the distribution's packages, after
# saying so (tests/setup/packages.sh); the test guests live in a cache (tests/guest/make.sh).
#
#   make demo        boot a real guest and drive it with mvm
#   make demo-guest  only make the guest, into mvm's image folder
#   make check       format, lints, unit tests: quick
#   make test        everything, with real guests
#   make lab         emulated hosts with IOMMU, SR-IOV, USB and KVM: see docs/lab.md
#   make bench       what mvm costs beside bare QEMU, as a table
#   make dist        static binaries target/dist/mvm-x86_64 and target/dist/mvm-aarch64
#   make msrv        build with the oldest supported compiler, for both architectures

# A compiler from rustup counts where the distribution's is missing or too old.
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO ?= cargo
SETUP := tests/setup

.PHONY: demo demo-guest check test lab bench dist msrv

# The debug build: a minute sooner on the screen, and the guest does not notice.
demo:
	$(SETUP)/packages.sh demo
	$(CARGO) build --locked
	$(MAKE) --no-print-directory demo-guest
	tests/demo.sh target/debug/mvm

demo-guest:
	@$(SETUP)/packages.sh demo
	@$(SETUP)/demo-guest.sh

check:
	$(SETUP)/packages.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked --workspace --lib --bins

test:
	$(SETUP)/packages.sh test
	$(SETUP)/test.sh

lab:
	$(SETUP)/packages.sh test
	$(SETUP)/lab.sh

bench:
	$(SETUP)/packages.sh demo
	MVM_DEMO_GUEST=$$(tests/guest/make.sh x86_64) $(CARGO) bench --locked

dist:
	$(SETUP)/packages.sh build
	$(SETUP)/dist.sh

msrv:
	$(SETUP)/msrv.sh
