// Package proof holds the black-box tests: each boots real clusters, drives
// the shipped binary through its command line, breaks something, and asks
// oracles that are not the tool's.
package proof
