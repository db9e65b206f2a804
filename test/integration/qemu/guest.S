/*
 * A guest in one boot sector: says GUEST on its serial console, then does what it was built for.
 *   -DIDLE     nothing, for ever
 *   -DPOLITE   waits for its power button, then switches itself off
 *   -DSHUTDOWN switches itself off after about TICKS eighteenths of a second
 *   -DEATER    writes into every page of its memory up to EAT_MIB, then idles
 *   -DPANIC    tells the panic device (slot 3) that it has panicked
 *   -DCHATTER  writes to its console without end
 * Ports as SeaBIOS sets them up on q35: power management at 0x600, serial at 0x3f8.
 */
	.code16
	.globl _start
_start:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7c00, %sp
	movw $text, %si
1:	lodsb
	testb %al, %al
	jz 2f
	movw $0x3f8, %dx
	outb %al, %dx
	jmp 1b
2:	sti

#if defined(POLITE)
	movw $0x602, %dx	/* enable the power button's event */
	movw $0x100, %ax
	outw %ax, %dx
3:	hlt
	movw $0x600, %dx
	inw %dx, %ax
	testw $0x100, %ax
	jz 3b
#elif defined(SHUTDOWN)
	movw $TICKS, %cx
3:	hlt
	loop 3b
#elif defined(CHATTER)
	movw $0x3f8, %dx
	movb $'x', %al
3:	outb %al, %dx
	jmp 3b
#elif defined(EATER) || defined(PANIC)
	cli
	movw $0x92, %dx
	inb %dx, %al
	orb $2, %al
	outb %al, %dx		/* A20 */
	lgdt gdt_pointer
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmp $8, $protected
	.code32
protected:
	movw $16, %ax
	movw %ax, %ds
#if defined(PANIC)
	movl $(0x80000000 | 3 << 11 | 0x10), %eax	/* its first base address */
	movw $0xcf8, %dx
	outl %eax, %dx
	movw $0xcfc, %dx
	inl %dx, %eax
	andl $0xfffffff0, %eax
	movb $1, (%eax)
4:	hlt
	jmp 4b
#else
	movl $0x100000, %edi
3:	movl %edi, (%edi)
	addl $4096, %edi
	cmpl $(EAT_MIB * 1048576), %edi
	jb 3b
4:	hlt
	jmp 4b
#endif
	.code16
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
#else
3:	hlt
	jmp 3b
#endif

	movw $0x604, %dx	/* sleep state 5: off */
	movw $0x2000, %ax
	outw %ax, %dx
5:	hlt
	jmp 5b

text:	.asciz "GUEST\r\n"
	.org 510
	.word 0xaa55
