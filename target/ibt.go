package target

import "encoding/binary"

// SealedEndbr returns the addresses of the ENDBR64 instructions that the kernel
// removes while it boots, because nothing in it takes these functions'
// addresses: an indirect call to one of them faults on processors with IBT.
// Source: objtool writes .ibt_endbr_seal as 4-byte offsets relative to their
// own place (arch/x86/kernel/alternative.c, apply_seal_endbr). The result is
// empty for kernels without CONFIG_X86_KERNEL_IBT.
func (im *Image) SealedEndbr() map[uint64]bool {
	s := im.Section(".ibt_endbr_seal")
	if s == nil {
		return map[uint64]bool{}
	}
	sealed := make(map[uint64]bool, len(s.Data)/4)
	for off := 0; off+4 <= len(s.Data); off += 4 {
		sealed[s.Addr+uint64(off)+uint64(int64(int32(binary.LittleEndian.Uint32(s.Data[off:]))))] = true
	}
	return sealed
}
