package main

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// read reads the next message of the suite: its length as four bytes, big-endian, and its bytes. It returns [io.EOF] after the last one.
func read(from io.Reader, message proto.Message) error {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(from, body); err != nil {
		return fmt.Errorf("read a message of %d bytes: %w", len(body), err)
	}
	return proto.Unmarshal(body, message)
}

// write writes a message as [read] reads it.
func write(to io.Writer, message proto.Message) error {
	body, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	_, err = to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}
