package main

import (
	"log"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsAddress is the usual address of a cluster's DNS Service.
const dnsAddress = "10.96.0.10"

// serveDNS resolves the names of Services to their cluster IPs. Any other name does not
// exist, because there is no network outside of the cluster.
func serveDNS(p *proxy) error {
	conn, err := net.ListenPacket("udp4", dnsAddress+":53")
	if err != nil {
		return err
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			answer, err := p.answerQuery(buffer[:n])
			if err != nil {
				log.Printf("DNS: %v", err)
				continue
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return nil
}

func (p *proxy) answerQuery(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true},
		Questions: m.Questions,
	}
	for _, q := range m.Questions {
		ip := p.lookUpService(q.Name.String())
		if ip == nil {
			reply.RCode = dnsmessage.RCodeNameError
			continue
		}
		if q.Type == dnsmessage.TypeA {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte(ip)},
			})
		}
	}
	return reply.Pack()
}

// lookUpService returns the cluster IP for name.namespace.svc.cluster.local; nil if there
// is no such Service.
func (p *proxy) lookUpService(name string) net.IP {
	short, ok := strings.CutSuffix(strings.TrimSuffix(name, "."), ".svc.cluster.local")
	if !ok {
		return nil
	}
	service, namespace, ok := strings.Cut(short, ".")
	if !ok {
		return nil
	}
	s, err := p.services.Services(namespace).Get(service)
	if err != nil {
		return nil
	}
	return net.ParseIP(s.Spec.ClusterIP).To4()
}
