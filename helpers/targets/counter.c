/* A plugin of QEMU's: counts the instructions that an emulated program executes, and writes the count down whenever the program
   asks for the priority of user MARK. What it uses of the plugin interface, version 1, is declared here: no header is needed. */
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))
enum { INLINE_ADD = 0, GETPRIORITY_ON_ARM64 = 141, PRIO_USER = 2, MARK = 1886 };
struct qemu_plugin_tb; /* a block of instructions that is always executed as a whole */
typedef void (*on_block)(uint64_t, struct qemu_plugin_tb *);
typedef void (*on_syscall)(uint64_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, on_block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t, on_syscall);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = 1;
static uint64_t count;
static FILE *notes;

static void translated(uint64_t id, struct qemu_plugin_tb *block) {
  qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD, &count, qemu_plugin_tb_n_insns(block));
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t which, uint64_t who, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h) {
  if (number == GETPRIORITY_ON_ARM64 && which == PRIO_USER && who == MARK) {
    fprintf(notes, "%llu\n", (unsigned long long)count);
    fflush(notes);
  }
}

EXPORT int qemu_plugin_install(uint64_t id, const void *about, int number, char **arguments) {
  if (number != 1 || !(notes = fopen(arguments[0] + sizeof "notes=" - 1, "w"))) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
