package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY" // with RSA or EC before it, or not
)

// ParseCertificates reads PEM that holds certificates and nothing else, at
// least one. Text outside of the blocks is ignored, as RFC 7468 has it.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("want blocks %s, got %q", certificateBlock, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(found)+1, err)
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return nil, errors.New("want at least one certificate in PEM, got none")
	}
	// A block that was cut off is no block at all to the decoder.
	if rest := bytes.TrimSpace(data); bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("certificate %d is cut off", len(found)+1)
	}
	return found, nil
}

// EncodeCertificates is the inverse of ParseCertificates.
func EncodeCertificates(list []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		_ = pem.Encode(&out, &pem.Block{Type: certificateBlock, Bytes: c.Raw}) // a buffer takes everything
	}
	return out.Bytes()
}

// parseKey reads the one private key of a PEM file. The errors of the standard
// library say nothing of the key itself.
func parseKey(data []byte) (*pem.Block, crypto.Signer, error) {
	var key *pem.Block
	for rest := data; len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "EC PARAMETERS": // OpenSSL writes them before the key
		case !bytes.HasSuffix([]byte(block.Type), []byte(keyBlock)):
			return nil, nil, fmt.Errorf("want a private key, got a block %q", block.Type)
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
		return nil, fmt.Errorf("want PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, got %q", block.Type)
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
