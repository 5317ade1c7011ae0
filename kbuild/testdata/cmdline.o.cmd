savedcmd_fs/proc/cmdline.o := gcc -Wp,-MMD,fs/proc/.cmdline.o.d -nostdinc -I/src/linux/include -I./include -include /src/linux/include/linux/kconfig.h -D__KERNEL__ -m64 -mcmodel=kernel '-D"STR(s)=$(pound)s"' -DPRICE='"$$1"' -DKBUILD_MODFILE='"fs/proc/proc"' -DKBUILD_MODNAME='"proc"' -c -o fs/proc/cmdline.o /src/linux/fs/proc/cmdline.c   ; ./tools/objtool/objtool --hacks=jump_label --orc   fs/proc/cmdline.o

source_fs/proc/cmdline.o := /src/linux/fs/proc/cmdline.c

deps_fs/proc/cmdline.o := \
  /src/linux/include/linux/kconfig.h \
    $(wildcard include/config/FOO) \
  include/generated/autoconf.h \
  /src/linux/fs/proc/internal.h \

fs/proc/cmdline.o: $(deps_fs/proc/cmdline.o)

$(deps_fs/proc/cmdline.o):

fs/proc/cmdline.o: $(wildcard ./tools/objtool/objtool)
