package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const certificateBlock = "CERTIFICATE"

// ParseCertificates parses PEM with one certificate or more, and no other block.
// Text outside of the blocks is ignored, as in RFC 7468. A truncated block is an
// error.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	found, err := decodeBlocks(data)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errNoCertificate
	}
	list := make([]*x509.Certificate, 0, len(found))
	for i, block := range found {
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("want blocks %s, got %.40q", certificateBlock, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// ParseRoots parses trust anchors in PEM. Unlike ParseCertificates it leaves out the
// blocks that cannot be read, because anchors do not depend on each other. It returns
// the others together with an error that names the first of those blocks.
func ParseRoots(data []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	var first error
	blocks, unreadable := splitBlocks(data), 0
	for i, text := range blocks {
		found, err := ParseCertificates(text)
		if err == nil {
			roots = append(roots, found...)
			continue
		}
		if unreadable++; first == nil {
			first = fmt.Errorf("block %d of %d: %w", i+1, len(blocks), err)
		}
	}
	switch {
	case len(blocks) == 0:
		return nil, errNoCertificate
	case unreadable > 1:
		return roots, fmt.Errorf("%w (and %d more blocks)", first, unreadable-1)
	default:
		return roots, first
	}
}

var errNoCertificate = errors.New("want at least one certificate in PEM, got none")

// splitBlocks splits PEM before every line that begins a block. It drops the text
// before the first one.
func splitBlocks(data []byte) [][]byte {
	var blocks [][]byte
	for line := range bytes.Lines(data) {
		switch {
		case beginsBlock(line):
			blocks = append(blocks, bytes.Clone(line))
		case len(blocks) > 0:
			blocks[len(blocks)-1] = append(blocks[len(blocks)-1], line...)
		}
	}
	return blocks
}

// beginsBlock reports whether a line begins a block. The last line of a truncated file
// may be a prefix of the marker.
func beginsBlock(line []byte) bool {
	begin := []byte("-----BEGIN")
	return bytes.HasPrefix(line, begin) || bytes.HasPrefix(begin, line)
}

// EncodeCertificates is the inverse of ParseCertificates.
func EncodeCertificates(list []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&out, &pem.Block{Type: certificateBlock, Bytes: c.Raw}) // a buffer accepts every write
	}
	return out.Bytes()
}

// decodeBlocks decodes every block of a PEM file. The standard library's decoder
// skips what it cannot read, so a truncated or damaged file would pass as a shorter
// one. Here it is an error.
func decodeBlocks(data []byte) ([]*pem.Block, error) {
	var found []*pem.Block
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = append(found, block)
	}
	begun := 0
	for line := range bytes.Lines(data) {
		if beginsBlock(line) {
			begun++
		}
	}
	if begun != len(found) {
		return nil, fmt.Errorf("PEM is truncated or damaged: %d blocks begin, %d are complete", begun, len(found))
	}
	return found, nil
}

// parseKey parses the one private key of a PEM file. Errors never contain key
// material.
func parseKey(data []byte) (*pem.Block, crypto.Signer, error) {
	found, err := decodeBlocks(data)
	if err != nil {
		return nil, nil, err
	}
	var key *pem.Block
	for _, block := range found {
		switch {
		case block.Type == "EC PARAMETERS": // OpenSSL writes this block before the key
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, nil, fmt.Errorf("want a private key, got a block %.40q", block.Type)
		case key != nil:
			return nil, nil, errors.New("want one private key, got several")
		default:
			key = block
		}
	}
	if key == nil {
		return nil, nil, errors.New("want a private key in PEM, got none")
	}
	signer, err := decodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return &pem.Block{Type: key.Type, Bytes: key.Bytes}, signer, nil
}

func decodeKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("want PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, got %.40q", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s does not parse", block.Type)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}
