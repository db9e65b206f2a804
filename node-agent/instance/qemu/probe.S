/*
 * The probe's guest, one boot sector: takes timer interrupts in real mode, goes to long mode with paging, counts there for a
 * while with interrupts of its own, and then tells QEMU (isa-debug-exit) that it got so far. A KVM that only looks like one
 * fails somewhere on this way. probe.ts holds the assembled bytes; its test assembles this file and compares.
 */
	.set EXIT_PORT, 0xf4
	.set EXIT_VALUE, 0x10
	.set TABLES, 0x1000	/* page tables; the first 2 MiB of memory, mapped as they are */
	.set IDT, 0x5000

	.code16
	.globl _start
_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	sti
	movw $2, %cx
1:	hlt			/* the firmware's timer wakes it, 18 times a second */
	loop 1b
	cli

	movw $TABLES, %di
	movw $0x1800, %cx
	xorl %eax, %eax
	rep stosl
	movl $(TABLES + 0x1003), TABLES
	movl $(TABLES + 0x2003), TABLES + 0x1000
	movl $0x83, TABLES + 0x2000

	movl %cr4, %eax
	orb $0x20, %al		/* PAE */
	movl %eax, %cr4
	movl $TABLES, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orw $0x100, %ax
	wrmsr
	lgdt gdt_pointer
	movl %cr0, %eax
	orl $0x80000001, %eax	/* paging, protection */
	movl %eax, %cr0
	ljmp $8, $long_mode

	.code64
long_mode:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x7c00, %esp
	/* the timer (vector 8, where the firmware left it) gets a handler; the rest stays masked */
	leal timer(%rip), %eax
	movw %ax, IDT + 8 * 16
	movl $0x8e000008, IDT + 8 * 16 + 2
	shrl $16, %eax
	movw %ax, IDT + 8 * 16 + 6
	lidt idt_pointer(%rip)
	movb $0xfe, %al
	outb %al, $0x21
	movb $0xff, %al
	outb %al, $0xa1
	movl $50000000, %ecx
2:	imull $1103515245, %ebx, %ebx
	addl $12345, %ebx
	decl %ecx
	jnz 2b
	xorl %eax, %eax
	cpuid
	xorl %r8d, %r8d
	sti
3:	hlt
	cmpl $2, %r8d
	jb 3b
	cli
	movb $EXIT_VALUE, %al
	outb %al, $EXIT_PORT
4:	hlt
	jmp 4b

timer:
	pushq %rax
	incl %r8d
	movb $0x20, %al
	outb %al, $0x20
	popq %rax
	iretq

	.balign 8
gdt:	.quad 0, 0x00209a0000000000, 0x0000920000000000
gdt_pointer:
	.word . - gdt - 1
	.long gdt
idt_pointer:
	.word 16 * 16 - 1
	.quad IDT

	.org 510
	.word 0xaa55
