package pipeline

import (
	"context"
	"errors"
	"fmt"
)

// partsKernel prepares a kernel from its parts: source, configuration, symbol
// versions and image.
func partsKernel(ctx context.Context, o KernelOptions, ev Events) (*Kernel, error) {
	var errs []error
	for _, p := range []struct{ flag, value string }{
		{"--source", o.Source}, {"--config", o.Config}, {"--symvers", o.Symvers}, {"--image", o.Image},
	} {
		if p.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing: give --kernel, or all of --source, --config, --symvers and --image", p.flag))
		}
	}
	return nil, errors.Join(append(errs, errors.New("--source and its kin are not supported yet"))...)
}
