"""What end-to-end encryption needs of a server: messages between devices and device lists."""
