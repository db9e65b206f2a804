# Everything a newcomer types. Each target prepares the machine first (packages, Node.js, npm packages): see hack/bootstrap.sh.
#   make lab          a three-node Kubernetes with Drover in it (DEV=1: pods run this working tree; BARE=1: without Drover)
#   make lab-down     takes it away, all of it
#   make demo         the whole story, told line by line (KEEP=1 leaves the lab up)
#   make test         everything that must pass; make check is its quick part
#   make bench        figures
#   make bench-migration  moves compared: by hand, by Drover, by libvirt, with the guest standing still (MOVES=3 CASES=1g-idle: less)
#   make bench-update     updates of QEMU under running guests: by hand, by Drover, and a whole node (UPDATES=3 FLEET=0: less)
#   make chaos        every fault in every phase of a move (PHASE= and FAULT= pick some; it goes on where it was broken off)
NODE := hack/bootstrap.sh node

.PHONY: lab lab-down lab-status reload images guest check test demo bench bench-migration bench-update chaos
.NOTPARALLEL:

lab:
	@$(NODE) hack/lab/main.ts up

lab-down:
	@$(NODE) hack/lab/main.ts down

lab-status:
	@$(NODE) hack/lab/main.ts status

reload:
	@$(NODE) hack/lab/main.ts reload

images:
	@$(NODE) hack/lab/main.ts images

guest:
	@$(NODE) hack/lab/main.ts guest

check:
	@$(NODE) hack/check.ts

test:
	@$(NODE) hack/lab/main.ts binaries
	@$(NODE) hack/test.ts

demo:
	@$(NODE) hack/demo.ts

bench:
	@$(NODE) hack/bench.ts

bench-migration:
	@$(NODE) hack/bench-migration.ts

bench-update:
	@$(NODE) hack/bench-update.ts

chaos:
	@$(NODE) hack/chaos.ts
