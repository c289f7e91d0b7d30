//go:build !linux

package servicestest

import "errors"

func dropPackets(any) error { return errors.ErrUnsupported }

func passPackets(any) error { return nil }
