package target

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// Signature is a module's signature, as it says itself: nothing is verified here.
type Signature struct {
	Signer string `json:"signer"` // common name of the certificate's issuer, or its key ID
	Key    string `json:"key"`    // serial number or key ID, hexadecimal
	Hash   string `json:"hash"`   // sha256 and the like
}

// What ends a signed module, include/linux/module_signature.h: the signature,
// struct module_signature, the mark.
const (
	signatureMark   = "~Module signature appended~\n"
	signatureInfo   = 12 // bytes of struct module_signature
	signatureIDType = 2  // offset of id_type
	signatureLength = 8  // offset of sig_len, big-endian
	pkeyIDPKCS7     = 2  // PKEY_ID_PKCS7
)

// SplitSignature returns the module without its signature, and the signature's
// bytes; none if it is not signed. If it is signed several times, only the last
// signature is split off, which is the one that the kernel looks at.
func SplitSignature(data []byte) (module, signature []byte, err error) {
	rest, signed := bytes.CutSuffix(data, []byte(signatureMark))
	if !signed {
		return data, nil, nil
	}
	if len(rest) < signatureInfo {
		return nil, nil, errors.New("module signature: cut off")
	}
	rest, info := rest[:len(rest)-signatureInfo], rest[len(rest)-signatureInfo:]
	if info[signatureIDType] != pkeyIDPKCS7 {
		return nil, nil, fmt.Errorf("module signature: type %d is not PKCS#7", info[signatureIDType])
	}
	size := uint64(binary.BigEndian.Uint32(info[signatureLength:]))
	if size == 0 || size > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("module signature: %d bytes are said to be there, the file has %d", size, len(rest))
	}
	at := uint64(len(rest)) - size
	return rest[:at], rest[at:], nil
}

// hashes are the digest algorithms that the kernel offers for modules.
var hashes = map[string]string{
	"1.3.14.3.2.26":           "sha1",
	"2.16.840.1.101.3.4.2.4":  "sha224",
	"2.16.840.1.101.3.4.2.1":  "sha256",
	"2.16.840.1.101.3.4.2.2":  "sha384",
	"2.16.840.1.101.3.4.2.3":  "sha512",
	"2.16.840.1.101.3.4.2.8":  "sha3-256",
	"2.16.840.1.101.3.4.2.9":  "sha3-384",
	"2.16.840.1.101.3.4.2.10": "sha3-512",
}

// ReadSignature describes a module's signature; nil if it is not signed.
func ReadSignature(data []byte) (*Signature, error) {
	_, der, err := SplitSignature(data)
	if err != nil || der == nil {
		return nil, err
	}
	s, err := parseSignature(der)
	if err != nil {
		return nil, fmt.Errorf("module signature: %w", err)
	}
	return s, nil
}

// parseSignature finds the first signer in a PKCS#7 SignedData (RFC 5652):
//
//	ContentInfo ::= SEQUENCE { contentType, [0] SEQUENCE { version, digests, content, ..., signers SET } }
//	SignerInfo  ::= SEQUENCE { version, issuerAndSerial | [0] subjectKeyIdentifier, digest, ... }
func parseSignature(der []byte) (*Signature, error) {
	content, err := inside(der, 1)
	if err != nil {
		return nil, err
	}
	data, err := inside(content[1].Bytes, 0)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, errors.New("no signers")
	}
	signer, err := inside(data[len(data)-1].Bytes, 2)
	if err != nil {
		return nil, err
	}
	id, err := signerID(signer[1])
	if err != nil {
		return nil, err
	}
	var digest asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(signer[2].Bytes, &digest); err != nil {
		return nil, err
	}
	id.Hash = hashes[digest.String()]
	if id.Hash == "" {
		id.Hash = digest.String()
	}
	return id, nil
}

// inside takes the first value apart; it must hold more than index values.
func inside(der []byte, index int) ([]asn1.RawValue, error) {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	var all []asn1.RawValue
	for rest := outer.Bytes; len(rest) > 0; {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if len(all) <= index {
		return nil, errors.New("no PKCS#7 signature")
	}
	return all, nil
}

// signerID reads how a signer names its certificate.
func signerID(v asn1.RawValue) (*Signature, error) {
	if v.Class == asn1.ClassContextSpecific {
		return &Signature{Signer: fmt.Sprintf("key %x", v.Bytes), Key: fmt.Sprintf("%x", v.Bytes)}, nil
	}
	var id struct {
		Issuer pkix.RDNSequence
		Serial *big.Int
	}
	if _, err := asn1.Unmarshal(v.FullBytes, &id); err != nil {
		return nil, err
	}
	var name pkix.Name
	name.FillFromRDNSequence(&id.Issuer)
	signer := name.CommonName
	if signer == "" {
		signer = name.String()
	}
	return &Signature{Signer: signer, Key: fmt.Sprintf("%x", id.Serial)}, nil
}
