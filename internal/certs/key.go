package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strconv"
)

// KeyType is the type of a private key.
type KeyType string

// The types of keys that Istio's agent creates.
const (
	ECDSA KeyType = "ECDSA"
	RSA   KeyType = "RSA"
)

// The sizes of RSA keys that may be requested. Istio's agent refuses less than the
// minimum (MinimumRsaKeySize in security/pkg/pki/util). Above the maximum, which is
// cert-manager's, a key takes minutes to create.
const (
	minRSASize = 2048
	maxRSASize = 8192
)

// KeySettings are the settings of a mesh for the keys of its workloads, in the words
// of Istio: variables of the agent that MeshConfig sets as proxyMetadata. The zero
// value means ECDSA P-256. (The agent's own default is RSA with 2048 bits.)
type KeySettings struct {
	// SignatureAlgorithm is ECC_SIGNATURE_ALGORITHM: ECDSA, or empty.
	SignatureAlgorithm string
	// Curve is ECC_CURVE: P256, P384 or empty, which means P256. Like the agent,
	// Isthmus ignores it without SignatureAlgorithm.
	Curve string
	// RSASize is WORKLOAD_RSA_KEY_SIZE, in bits. It asks for an RSA key, unless
	// SignatureAlgorithm is set.
	RSASize string
}

// KeyAlgorithm is a type of private keys and their size.
type KeyAlgorithm struct {
	Type KeyType
	// Size is in bits. For ECDSA it selects the curve.
	Size int
}

// Algorithm returns the algorithm that the settings ask for. An error names the
// variable, its value and the allowed ones.
func (s KeySettings) Algorithm() (KeyAlgorithm, error) {
	switch {
	case s.SignatureAlgorithm == "" && s.RSASize == "":
		return KeyAlgorithm{ECDSA, 256}, nil
	case s.SignatureAlgorithm == "":
		size, err := strconv.Atoi(s.RSASize)
		if err != nil || size < minRSASize || size > maxRSASize {
			return KeyAlgorithm{}, fmt.Errorf("WORKLOAD_RSA_KEY_SIZE %.40q: want a number of bits from %d to %d", s.RSASize, minRSASize, maxRSASize)
		}
		return KeyAlgorithm{RSA, size}, nil
	case s.SignatureAlgorithm != string(ECDSA):
		return KeyAlgorithm{}, fmt.Errorf("ECC_SIGNATURE_ALGORITHM %.40q: want ECDSA, or none for RSA", s.SignatureAlgorithm)
	}
	switch s.Curve {
	case "", "P256":
		return KeyAlgorithm{ECDSA, 256}, nil
	case "P384":
		return KeyAlgorithm{ECDSA, 384}, nil
	default:
		return KeyAlgorithm{}, fmt.Errorf("ECC_CURVE %.40q: want P256 or P384", s.Curve)
	}
}

// Generate creates a private key.
func (a KeyAlgorithm) Generate() (crypto.Signer, error) {
	switch {
	case a.Type == RSA:
		return rsa.GenerateKey(rand.Reader, a.Size)
	case a.Size == 384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
}
